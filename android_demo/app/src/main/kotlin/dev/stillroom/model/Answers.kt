package dev.stillroom.model

import kotlin.math.exp
import kotlin.math.tanh

// What logits say, as src/stillroom/answers.py has it: the same numbers lead to the same answer.

/**
 * Probabilities from logits [labels], which sum to 1. The largest is taken off first, so that none overflows.
 */
internal fun softmax(logits: DoubleArray): DoubleArray {
    val largest = logits.maxOf { it }
    val powers = DoubleArray(logits.size) { exp(logits[it] - largest) }
    val sum = powers.sum()
    return DoubleArray(logits.size) { powers[it] / sum }
}

/** 1 / (1 + exp(-x)), in a form that does not overflow. */
internal fun sigmoid(logits: DoubleArray): DoubleArray =
    DoubleArray(logits.size) { 0.5 * (1.0 + tanh(0.5 * logits[it])) }

/** Probability of each label; empty for a regression, which has none. */
internal fun probabilities(task: Task, logits: DoubleArray): DoubleArray = when (task.kind) {
    TaskKind.CLASSIFICATION -> softmax(logits)
    TaskKind.MULTI_LABEL -> sigmoid(logits)
    TaskKind.REGRESSION -> DoubleArray(0)
}

/** The labels that logits choose: the first largest; or all of 0 and more, a probability of 0.5; or none. */
internal fun chosenLabels(task: Task, logits: DoubleArray): List<String> = when (task.kind) {
    TaskKind.CLASSIFICATION -> listOf(task.labels[logits.indices.maxByOrNull { logits[it] }!!])
    TaskKind.MULTI_LABEL -> task.labels.filterIndexed { index, _ -> logits[index] >= 0 }
    TaskKind.REGRESSION -> emptyList()
}

internal fun FloatArray.toDoubles(): DoubleArray = DoubleArray(size) { this[it].toDouble() }
