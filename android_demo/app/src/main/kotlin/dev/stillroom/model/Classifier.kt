package dev.stillroom.model

import dev.stillroom.tokenization.Encoding
import java.io.Closeable

/**
 * What the model says of a text.
 *
 * [labels] the chosen: one; any number of a multi-label task; none of a regression. [probabilities] of every
 * label, 0..1, in the task's order; empty for a regression. [score] that of a regression, else null. [logits]
 * raw. [tokens] of the text, special tokens included, after it was cut to the longest input. [tokenizeMs] and
 * [inferenceMs] milliseconds of wall time.
 */
class Answer internal constructor(
    val labels: List<String>,
    val probabilities: List<Pair<String, Float>>,
    val score: Float?,
    val logits: FloatArray,
    val tokens: Int,
    val tokenizeMs: Double,
    val inferenceMs: Double,
)

/**
 * A bundle with its opened model: texts in, answers out.
 *
 * May be called from any thread; calls wait for each other, as tokenizer and model reuse their buffers. A
 * call takes as long as an inference: keep it off the main thread. [close] waits for the call in progress;
 * later ones throw [IllegalStateException].
 */
class Classifier(val bundle: Bundle, private val model: Model) : Closeable {
    private val lock = Any()
    private var closed = false
    private val task get() = bundle.manifest.task

    /**
     * Classify a text, or a pair of texts. Throws [IllegalArgumentException] when the task wants a pair and
     * got none, or the reverse, and [BundleError.ModelFailed] when the runtime cannot answer.
     */
    fun classify(text: String, pair: String? = null): Answer = synchronized(lock) {
        val start = System.nanoTime()
        val encoding = encode(text, pair)
        val tokenized = System.nanoTime()
        val logits = logits(encoding)
        val answered = System.nanoTime()
        val values = logits.toDoubles()
        val shares = probabilities(task, values)
        Answer(
            labels = chosenLabels(task, values),
            probabilities = shares.mapIndexed { index, share -> task.labels[index] to share.toFloat() },
            score = if (task.kind == TaskKind.REGRESSION) logits[0] else null,
            logits = logits,
            tokens = encoding.ids.size,
            tokenizeMs = (tokenized - start) / 1e6,
            inferenceMs = (answered - tokenized) / 1e6,
        )
    }

    /** The ids of a text, or of a pair of texts, as [classify] takes them. */
    internal fun encode(text: String, pair: String?): Encoding = synchronized(lock) {
        val wanted = if (task.pair) "two texts" else "one text"
        require((pair != null) == task.pair) { "this bundle classifies $wanted" }
        bundle.tokenizer.encode(text, pair)
    }

    /** Logits of ids: as many finite numbers as the task has labels. */
    internal fun logits(encoding: Encoding): FloatArray = synchronized(lock) {
        check(!closed) { "this classifier is closed: open the bundle again" }
        val logits = model.logits(encoding)
        if (logits.size != task.labels.size || logits.any { it.isNaN() || it.isInfinite() }) {
            throw BundleError.ModelFailed(
                "the model answered ${shown(logits.joinToString())}, wanted ${task.labels.size} finite " +
                    "numbers: use the model file that the bundle was made with",
            )
        }
        logits
    }

    override fun close() = synchronized(lock) {
        if (!closed) model.close()
        closed = true
    }
}
