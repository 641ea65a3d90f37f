package dev.stillroom.bench

import dev.stillroom.model.FakeRuntime
import dev.stillroom.model.TestBundle
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.util.concurrent.CancellationException

class BenchTest {
    private val bundle = TestBundle(tokenTypes = true).open()

    @Test
    fun theFirstCallAndTheWarmUpAreNoSamples() {
        val fed = ArrayList<IntArray>()
        val runtime = FakeRuntime(answer = {
            fed.add(it.ids.clone())
            Thread.sleep(if (fed.size == 1) 30 else if (fed.size <= 4) 100 else 1)
            floatArrayOf(0f, 0f)
        })
        val told = ArrayList<Int>()
        val settings = BenchSettings(threads = 2, warmup = 3, runs = 5, tokens = 6)
        val samples = runBench(bundle, runtime, settings, told::add)
        assertEquals(9, fed.size)
        assertEquals((1..9).toList(), told)
        assertEquals(5, samples.samplesMs.size)
        assertTrue(samples.firstMs >= 30)
        assertTrue(samples.samplesMs.all { it >= 1 })
        assertTrue("not one call of the warm-up is among them", samples.samplesMs.minOrNull()!! < 100)
        assertTrue(samples.loadMs > 0)
        assertEquals(1, runtime.closed)
        for (ids in fed) assertArrayEquals(intArrayOf(2, 5, 5, 5, 5, 3), ids)
    }

    @Test
    fun itStopsWhenItIsCancelled() {
        val runtime = FakeRuntime()
        var done = 0
        assertThrows(CancellationException::class.java) {
            runBench(bundle, runtime, BenchSettings(1, 10, 10, 4), { done = it }, { done >= 7 })
        }
        assertEquals(7, done)
        assertEquals(1, runtime.closed)
    }

    @Test
    fun settingsOutOfRangeAreRefused() {
        for (make in listOf<() -> BenchSettings>(
            { BenchSettings(0, 1, 1, 4) }, { BenchSettings(257, 1, 1, 4) }, { BenchSettings(1, -1, 1, 4) },
            { BenchSettings(1, 1, 0, 4) }, { BenchSettings(1, 1, 10_001, 4) }, { BenchSettings(1, 1, 1, 1) },
        )) {
            assertThrows(IllegalArgumentException::class.java) { make() }
        }
        val runtime = FakeRuntime()
        val tooLong = BenchSettings(1, 1, 1, 9)
        assertThrows(IllegalArgumentException::class.java) { runBench(bundle, runtime, tooLong) }
        assertEquals(0, runtime.opened)
    }

    @Test
    fun percentilesInterpolate() {
        val same = listOf("p50", "p90", "p95", "p99").associateWith { 7.0 }
        assertEquals(same, percentiles(doubleArrayOf(7.0)))
        val found = percentiles(DoubleArray(101) { 100.0 - it })
        assertEquals(mapOf("p50" to 50.0, "p90" to 90.0, "p95" to 95.0, "p99" to 99.0), found)
        assertEquals(1.5, percentiles(doubleArrayOf(2.0, 1.0)).getValue("p50"), 0.0)
        assertThrows(IllegalArgumentException::class.java) { percentiles(DoubleArray(0)) }
    }

    @Test
    fun theDocumentHoldsWhatTheSchemaTakes() {
        val samples = BenchSamples(BenchSettings(1, 0, 2, 4), 1.5, 2.5, doubleArrayOf(0.1, 0.2))
        val device = DeviceFacts("Größe", "x".repeat(200), "", true, "14", 34, "arm64-v8a", 0, 0)
        val unknown = Conditions(-1, Double.NaN, 250.0)
        val text = benchJson(
            "app", "1", FakeRuntime(), bundle.manifest.model, device, samples, unknown,
            after = Conditions(6, 30.5, null), pssBytes = 0, finishedAtMs = 1_700_000_000_000,
        )
        for (part in listOf(
            "manufacturer': 'Gr??e'", "soc': '?'", "samples_ms': [0.1, 0.2]", "cores': 1,", "ram_bytes': 1}",
            "thermal_status_before': null", "thermal_status_after': 6", "battery_celsius_before': null",
            "battery_celsius_after': 30.5", "battery_percent': null", "date': '2023-11-14T22:13:20Z'",
        )) {
            assertTrue("$part in $text", part in text.replace('"', '\''))
        }
        assertFalse("x".repeat(101) in text)
    }
}
