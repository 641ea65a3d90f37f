package dev.stillroom.bench

import kotlin.math.floor

/**
 * Percentiles of samples by linear interpolation, as benchmarks/statistics.py has them (numpy's "linear", to
 * the last bit): "p50", "p90", "p95" and "p99", in the samples' unit. Throws [IllegalArgumentException] on no
 * samples.
 */
fun percentiles(samples: DoubleArray): Map<String, Double> {
    require(samples.isNotEmpty()) { "no samples to take percentiles of" }
    val sorted = samples.sortedArray()
    return listOf(50, 90, 95, 99).associate { "p$it" to quantile(sorted, it / 100.0) }
}

private fun quantile(sorted: DoubleArray, share: Double): Double {
    val at = (sorted.size - 1) * share
    val below = floor(at).toInt()
    val part = at - below
    val low = sorted[below]
    val high = sorted[minOf(below + 1, sorted.size - 1)]
    // From the nearer end: the same rounding as numpy's.
    return if (part < 0.5) low + (high - low) * part else high - (high - low) * (1 - part)
}
