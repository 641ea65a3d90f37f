package dev.stillroom.model

import kotlin.math.abs

/**
 * How golden vectors were replayed. [maxAbsError] largest difference of a logit, [allowed] what may be;
 * [firstDifference] the first golden vector that differs, in words, or null when all agree.
 */
class GoldenReport internal constructor(
    val count: Int,
    val maxAbsError: Double,
    val allowed: Double,
    val firstDifference: String?,
)

/**
 * Answer every golden text on this device and compare: ids exactly, logits within what the bundle allows.
 * [progress] is told how many are done. Throws [BundleError.ModelFailed] when the model does not run.
 */
fun replayGoldens(classifier: Classifier, progress: (Int) -> Unit = {}): GoldenReport {
    val bundle = classifier.bundle
    val allowed = bundle.manifest.goldenMaxAbsError
    var largest = 0.0
    var first: String? = null
    bundle.goldens.forEachIndexed { index, golden ->
        val encoding = classifier.encode(golden.text, golden.pair)
        val logits = classifier.logits(encoding).toDoubles()
        val error = logits.indices.maxOf { abs(logits[it] - golden.logits[it]) }
        largest = maxOf(largest, error)
        val where = "golden vector $index (${shown(golden.text)})"
        val difference = differenceOf("id", golden.ids, encoding.ids)
            ?: golden.typeIds?.let { differenceOf("type id", it, encoding.typeIds) }
            ?: if (error > allowed) logitDifference(bundle.manifest, golden, logits, error) else null
        if (first == null && difference != null) first = "$where: $difference"
        progress(index + 1)
    }
    return GoldenReport(bundle.goldens.size, largest, allowed, first)
}

private fun differenceOf(what: String, wanted: IntArray, found: IntArray): String? {
    val places = 0 until maxOf(wanted.size, found.size)
    val at = places.firstOrNull { wanted.getOrNull(it) != found.getOrNull(it) } ?: return null
    val here = found.getOrNull(at) ?: "missing"
    return "$what $at is $here, recorded is ${wanted.getOrNull(at) ?: "none"}: the tokenizer differs"
}

private fun logitDifference(manifest: Manifest, golden: Golden, found: DoubleArray, error: Double): String {
    val task = manifest.task
    val at = found.indices.first { abs(found[it] - golden.logits[it]) == error }
    val said = chosenLabels(task, found)
    val recorded = shown(golden.labels)
    val label = if (said == golden.labels) "" else "; it says ${shown(said)}, recorded is $recorded"
    return "the logit of ${shown(task.labels[at])} is ${found[at].toFloat()}, recorded is " +
        "${golden.logits[at].toFloat()}, ${manifest.goldenMaxAbsError.toFloat()} apart is allowed$label"
}
