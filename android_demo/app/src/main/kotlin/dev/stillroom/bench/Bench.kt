package dev.stillroom.bench

import dev.stillroom.model.Bundle
import dev.stillroom.model.Model
import dev.stillroom.model.Runtime
import dev.stillroom.tokenization.Encoding
import java.util.concurrent.CancellationException

/**
 * What is measured. [threads] given to the runtime. [warmup] calls before the samples, besides the very
 * first. [runs] timed calls. [tokens] of the text that is fed, special tokens included.
 */
class BenchSettings(val threads: Int, val warmup: Int, val runs: Int, val tokens: Int) {
    init {
        require(threads in 1..256) { "$threads threads, wanted 1 to 256" }
        require(warmup in 0..100_000) { "$warmup calls of warm-up, wanted 0 to 100000" }
        require(runs in 1..10_000) { "$runs runs, wanted 1 to 10000" }
        require(tokens in 2..8192) { "$tokens tokens, wanted 2 to 8192" }
    }
}

/**
 * What was measured, milliseconds of wall time. [loadMs] from opening the file to a model that can be called.
 * [firstMs] the first call, in which the runtime sets its memory up. [samplesMs] every timed call in order,
 * raw: inference alone, no tokenizing, none left out.
 */
class BenchSamples(
    val settings: BenchSettings,
    val loadMs: Double,
    val firstMs: Double,
    val samplesMs: DoubleArray,
)

/**
 * Open a bundle's model anew and time it. [progress] is told how many calls are done, of 1 + warmup + runs.
 *
 * Throws [CancellationException] soon after [cancelled] says so, [IllegalArgumentException] when the model
 * takes fewer tokens than the settings ask for, and what [Runtime.open] throws. Blocks: call it off the main
 * thread.
 */
fun runBench(
    bundle: Bundle,
    runtime: Runtime,
    settings: BenchSettings,
    progress: (Int) -> Unit = {},
    cancelled: () -> Boolean = { false },
): BenchSamples {
    val encoding = textOf(bundle, settings.tokens)
    val start = System.nanoTime()
    runtime.open(bundle, settings.threads).use { model ->
        val loadMs = milliseconds(System.nanoTime() - start)
        var done = 0
        fun call(): Double {
            if (cancelled()) throw CancellationException("the benchmark was cancelled after $done calls")
            return timedMs(model, encoding).also { progress(++done) }
        }
        val firstMs = call()
        repeat(settings.warmup) { call() }
        return BenchSamples(settings, loadMs, firstMs, DoubleArray(settings.runs) { call() })
    }
}

private fun timedMs(model: Model, encoding: Encoding): Double {
    val start = System.nanoTime()
    model.logits(encoding)
    return milliseconds(System.nanoTime() - start)
}

/** Never 0, however coarse the clock: the document's schema wants times above it. */
private fun milliseconds(nanoseconds: Long): Double = maxOf(nanoseconds, 1L) / 1e6

/** The golden texts one after another, cut to so many tokens and repeated where they are too few. */
private fun textOf(bundle: Bundle, tokens: Int): Encoding {
    val longest = bundle.manifest.task.maxLength
    require(tokens <= longest) { "$tokens tokens, the model takes at most $longest" }
    val options = bundle.manifest.wordPiece
    val special = setOf(options.clsId, options.sepId)
    val words = bundle.goldens.flatMap { it.ids.asList() }.filter { it !in special }
    val ids = IntArray(tokens) { if (words.isEmpty()) options.unknownId else words[it % words.size] }
    ids[0] = options.clsId
    ids[tokens - 1] = options.sepId
    return Encoding(ids, IntArray(tokens))
}
