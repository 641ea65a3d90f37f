package dev.stillroom.model

import dev.stillroom.tokenization.Encoding
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread

class ClassifierTest {
    private fun classifier(bundle: TestBundle, answer: (Encoding) -> FloatArray): Classifier {
        val opened = bundle.open()
        return Classifier(opened, FakeRuntime(answer = answer).open(opened, 1))
    }

    @Test
    fun everyKindAnswersInItsWay() {
        val one = classifier(TestBundle()) { floatArrayOf(0f, 0f) }.classify("the food")
        assertEquals(listOf("bad"), one.labels) // the first of the largest
        assertEquals(listOf("bad" to 0.5f, "good" to 0.5f), one.probabilities)
        assertEquals(4, one.tokens)
        assertNull(one.score)
        val several = classifier(TestBundle(TaskKind.MULTI_LABEL)) { floatArrayOf(0f, 1f) }.classify("food")
        assertEquals(listOf("bad", "good"), several.labels)
        assertEquals(0.7310586f, several.probabilities[1].second, 1e-6f)
        val none = classifier(TestBundle(TaskKind.MULTI_LABEL)) { floatArrayOf(-1f, -2f) }.classify("")
        assertEquals(emptyList<String>(), none.labels)
        val score = classifier(TestBundle(TaskKind.REGRESSION)) { floatArrayOf(3.5f) }.classify("the food")
        assertEquals(3.5f, score.score)
        assertTrue(score.labels.isEmpty() && score.probabilities.isEmpty())
        assertTrue(score.tokenizeMs >= 0 && score.inferenceMs >= 0)
    }

    @Test
    fun probabilitiesDoNotOverflow() {
        assertArrayEquals(doubleArrayOf(1.0, 0.0), softmax(doubleArrayOf(1e30, -1e30)), 0.0)
        assertArrayEquals(doubleArrayOf(0.0, 1.0), softmax(doubleArrayOf(-3e38, 3e38)), 0.0)
        assertArrayEquals(doubleArrayOf(1.0, 0.0, 0.5), sigmoid(doubleArrayOf(1e30, -1e30, 0.0)), 0.0)
        assertEquals(1.0, softmax(DoubleArray(1000) { it / 7.0 }).sum(), 1e-12)
    }

    @Test
    fun oneTextOrTwo() {
        val single = classifier(TestBundle()) { floatArrayOf(1f, 0f) }
        assertThrows(IllegalArgumentException::class.java) { single.classify("a", "b") }
        val two = classifier(TestBundle(pair = true, tokenTypes = true)) {
            floatArrayOf(it.typeIds.sum().toFloat(), 0f)
        }
        assertThrows(IllegalArgumentException::class.java) { two.classify("the") }
        assertEquals(2f, two.classify("the", "food").logits[0])
    }

    @Test
    fun logitsThatAreNoneAreRefused() {
        for (bad in listOf(
            floatArrayOf(1f), floatArrayOf(1f, 2f, 3f), floatArrayOf(Float.NaN, 0f),
            floatArrayOf(0f, Float.NEGATIVE_INFINITY),
        )) {
            refusal<BundleError.ModelFailed> { classifier(TestBundle()) { bad }.classify("the") }
        }
    }

    @Test
    fun callsOfManyThreadsWaitForEachOther() {
        val inside = AtomicInteger()
        val together = AtomicInteger()
        val classifier = classifier(TestBundle()) {
            if (inside.incrementAndGet() > 1) together.incrementAndGet()
            Thread.sleep(1)
            inside.decrementAndGet()
            floatArrayOf(it.ids.size.toFloat(), 0f)
        }
        val wrong = AtomicInteger()
        val threads = (1..4).map { words ->
            thread {
                repeat(20) {
                    val found = classifier.classify("the ".repeat(words)).logits[0]
                    if (found != words + 2f) wrong.incrementAndGet()
                }
            }
        }
        threads.forEach { it.join() }
        assertEquals(0, together.get())
        assertEquals(0, wrong.get())
    }

    @Test
    fun aClosedOneAnswersNoMore() {
        val runtime = FakeRuntime()
        val bundle = TestBundle().open()
        val classifier = Classifier(bundle, runtime.open(bundle, 1))
        classifier.close()
        classifier.close()
        assertEquals(1, runtime.closed)
        assertThrows(IllegalStateException::class.java) { classifier.classify("the") }
    }

    private fun filled(lengths: List<Int>, vararg ids: Int): Map<String, List<Long>> {
        val bundle = TestBundle(tokenTypes = true).apply {
            part("artifacts")["lengths"] = lengths
            manifest["pad_id"] = 7
        }
        val inputs = ModelInputs(bundle.open().manifest)
        inputs.fill(Encoding(IntArray(8) { 5 }, IntArray(8) { 1 })) // what is left behind of another text
        val length = inputs.fill(Encoding(ids, IntArray(ids.size) { 1 }))
        return inputs.buffers.mapValues { (_, buffer) ->
            assertEquals(length, buffer.remaining())
            assertTrue(buffer.isDirect)
            List(length) { buffer.get(it) }
        }
    }

    @Test
    fun shorterTextsArePaddedToTheNextLength() {
        val wanted = mapOf(
            "input_ids" to listOf(2L, 3L),
            "attention_mask" to listOf(1L, 1L),
            "token_type_ids" to listOf(1L, 1L),
        )
        assertEquals(wanted, filled(emptyList(), 2, 3))
        val padded = mapOf(
            "input_ids" to listOf(2L, 3L, 7L, 7L),
            "attention_mask" to listOf(1L, 1L, 0L, 0L),
            "token_type_ids" to listOf(1L, 1L, 0L, 0L),
        )
        assertEquals(padded, filled(listOf(4, 8), 2, 3))
        assertEquals(wanted, filled(listOf(2, 8), 2, 3))
        assertEquals(8, filled(listOf(4, 8), 2, 3, 3, 3, 3).getValue("input_ids").size)
        assertThrows(IllegalArgumentException::class.java) { filled(emptyList(), *IntArray(9)) }
    }
}
