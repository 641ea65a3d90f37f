package dev.stillroom.tokenization

import com.sun.management.ThreadMXBean
import java.io.File
import java.lang.management.ManagementFactory

/** Bytes that this thread has allocated so far. */
fun allocatedBytes(): Long {
    val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean
    return threads.getThreadAllocatedBytes(Thread.currentThread().id)
}

/**
 * Encodes all texts of a file of [readCases] on one thread, in rounds: untimed ones first, then timed ones.
 *
 * Arguments: the file, and how many rounds of either. Prints, as JSON, what each timed round took.
 */
fun main(args: Array<String>) {
    val rounds = readCases(File(args[0])).map { cases ->
        repeat(args[1].toInt()) { encodeAll(cases) }
        List(args[2].toInt()) {
            val bytes = allocatedBytes()
            val startNs = System.nanoTime()
            val tokens = encodeAll(cases)
            val ns = System.nanoTime() - startNs
            """{"seconds": ${ns / 1e9}, "allocated_bytes": ${allocatedBytes() - bytes}, "tokens": $tokens}"""
        }
    }
    println(rounds.joinToString(", ", "[", "]") { it.joinToString(", ", "[", "]") })
}

/** How many tokens there are: a sum that no compiler can leave out. */
private fun encodeAll(cases: Cases): Long {
    var tokens = 0L
    for ((text, pair) in cases.texts) tokens += cases.tokenizer.encode(text, pair).ids.size
    return tokens
}
