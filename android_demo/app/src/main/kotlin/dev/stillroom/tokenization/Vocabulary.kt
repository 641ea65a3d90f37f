package dev.stillroom.tokenization

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/** A model's tokens: the id of each is its line in vocab.txt, from 0. Threads may share one. */
class Vocabulary private constructor(private val text: CharArray, private val starts: IntArray) {
    /** Tokens in it. */
    val size get() = starts.size - 1

    /** What a word, or the first piece of one, is looked up in. */
    internal val words = PieceTable(text, starts, "")

    /** What later pieces of a word are looked up in: the tokens that begin with [prefix], without it. */
    internal fun continuations(prefix: String): PieceTable =
        if (prefix.isEmpty()) words else PieceTable(text, starts, prefix)

    companion object {
        /**
         * Reads vocab.txt: UTF-8, a token per line, with nothing but '\n' at the end of a line.
         *
         * @throws IllegalArgumentException when it is not that, or has no tokens, or one token twice
         */
        fun read(bytes: ByteArray): Vocabulary {
            val decoded = try {
                Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes))
            } catch (_: CharacterCodingException) {
                throw IllegalArgumentException("vocab.txt is not UTF-8: write the bundle again")
            }
            val length = decoded.length
            require(length > 0) { "vocab.txt has no tokens: write the bundle again" }
            val text = CharArray(if (decoded[length - 1] == '\n') length else length + 1)
            decoded.get(text, 0, length)
            text[text.size - 1] = '\n'
            val starts = IntArray(1 + text.count { it == '\n' })
            var token = 0
            for (at in text.indices) if (text[at] == '\n') starts[++token] = at + 1
            return Vocabulary(text, starts)
        }
    }
}

/**
 * Pieces and their ids, found by a stretch of a buffer: an open-addressing hash table, to which nobody has to
 * bring a String. Holds the tokens of [text] that begin with a prefix, without it; [starts] says where each
 * token begins, and a '\n' ends it.
 */
internal class PieceTable(private val text: CharArray, private val starts: IntArray, prefix: String) {
    private val skip = prefix.length
    private val hashes = IntArray(starts.size - 1)
    private val slots: IntArray // an id + 1, 0 where there is none
    private val shift: Int

    /** Length of the longest piece, in UTF-16 units. */
    val longest: Int

    init {
        val held = hashes.indices.filter { startOf(it) < endOf(it) && beginsWith(it, prefix) }
        longest = held.maxOfOrNull { endOf(it) - startOf(it) } ?: 0
        val bits = Int.SIZE_BITS - Integer.numberOfLeadingZeros(2 * held.size + 1)
        slots = IntArray(1 shl bits)
        shift = Int.SIZE_BITS - bits
        var steps = 0L
        for (id in held) {
            for (at in startOf(id) until endOf(id)) hashes[id] = extendHash(hashes[id], text[at])
            val slot = slotOf(text, startOf(id), endOf(id), hashes[id])
            require(slots[slot] == 0) {
                val token = String(text, starts[id], endOf(id) - starts[id])
                "vocab.txt has \"$token\" in lines ${slots[slot]} and ${id + 1}: write the bundle again"
            }
            // One or two steps each are usual. A list made to collide would take hours.
            steps += (slot - (hashes[id] * SPREAD ushr shift)) and (slots.size - 1)
            require(steps <= MOST_STEPS * held.size) {
                "vocab.txt has tokens that are made to be confused with each other: write the bundle again"
            }
            slots[slot] = id + 1
        }
    }

    /** The id of the piece that is [chars] from [from] until [to], or -1. [hash]: by [extendHash]. */
    fun find(chars: CharArray, from: Int, to: Int, hash: Int): Int = slots[slotOf(chars, from, to, hash)] - 1

    private fun slotOf(chars: CharArray, from: Int, to: Int, hash: Int): Int {
        var slot = hash * SPREAD ushr shift
        while (slots[slot] != 0 && !isPiece(slots[slot] - 1, chars, from, to, hash)) {
            slot = (slot + 1) and (slots.size - 1)
        }
        return slot
    }

    private fun isPiece(id: Int, chars: CharArray, from: Int, to: Int, hash: Int): Boolean {
        val start = startOf(id)
        if (hashes[id] != hash || endOf(id) - start != to - from) return false
        for (at in from until to) if (text[start + at - from] != chars[at]) return false
        return true
    }

    private fun startOf(id: Int) = starts[id] + skip

    private fun endOf(id: Int) = starts[id + 1] - 1 // before the '\n'

    private fun beginsWith(id: Int, prefix: String) =
        prefix.indices.all { text[starts[id] + it] == prefix[it] }

    companion object {
        private const val MOST_STEPS = 64L // on average
        private const val SPREAD = -0x61c88647 // 2^32 / the golden ratio: mixes all bits into the high ones

        /** The hash of a piece and one more char; 0 is the hash of nothing. */
        fun extendHash(hash: Int, char: Char): Int = 31 * hash + char.code
    }
}
