package dev.stillroom.tokenization

import org.junit.Assert.assertEquals
import org.junit.Test

class VocabularyTest {
    @Test
    fun theIdOfATokenIsItsLine() {
        for (text in listOf("a\nb\nab\n", "a\nb\nab")) {
            val vocabulary = Vocabulary.read(text.toByteArray())
            assertEquals(3, vocabulary.size)
            assertEquals(listOf(0, 1, 2), listOf("a", "b", "ab").map { vocabulary.words.idOf(it) })
            assertEquals(-1, vocabulary.words.idOf("ba"))
        }
    }

    @Test
    fun nothingButAnEndOfLineEndsAToken() {
        val vocabulary = Vocabulary.read("a\r\n\u2028\n b\u0085\n\n\u0000".toByteArray())
        assertEquals(5, vocabulary.size)
        val odd = listOf("a\r", "\u2028", " b\u0085", "\u0000")
        assertEquals(listOf(0, 1, 2, 4), odd.map { vocabulary.words.idOf(it) })
    }

    @Test
    fun laterPiecesAreWithoutTheirPrefix() {
        val vocabulary = Vocabulary.read("a\n##\n##b\n##ab\n#c\n##".toByteArray().dropLast(3).toByteArray())
        val later = vocabulary.continuations("##")
        assertEquals(listOf(2, 3), listOf("b", "ab").map { later.idOf(it) })
        assertEquals(listOf(-1, -1, -1), listOf("a", "##b", "c").map { later.idOf(it) })
        assertEquals("without a prefix they are all tokens", 0, vocabulary.continuations("").idOf("a"))
        assertEquals("a prefix longer than the file", -1, vocabulary.continuations("#".repeat(99)).idOf("a"))
    }

    @Test
    fun whatIsNoVocabularyIsRefused() {
        assertRefused("vocab.txt has no tokens: write the bundle again") { Vocabulary.read(ByteArray(0)) }
        assertRefused("vocab.txt is not UTF-8: write the bundle again") { Vocabulary.read(byteArrayOf(-1)) }
        assertRefused("vocab.txt has \"b\" in lines 2 and 4: write the bundle again") {
            Vocabulary.read("a\nb\nc\nb\n".toByteArray())
        }
    }

    @Test
    fun manyTokensAreAllFound() {
        val tokens = List(50_000) { it.toString(36) } // many want the same slot
        val words = Vocabulary.read(tokens.joinToString("\n").toByteArray()).words
        for ((id, token) in tokens.withIndex()) assertEquals(id, words.idOf(token))
        assertEquals(-1, words.idOf("zzzz"))
        assertEquals(listOf(-1, -1), listOf("Aa", "BB").map { words.idOf(it) }) // of one hash
        val alike = Vocabulary.read("Aa\nBB\nC#".toByteArray()).words
        assertEquals(listOf(0, 1, 2), listOf("Aa", "BB", "C#").map { alike.idOf(it) })
    }

    @Test
    fun aListMadeToCollideIsRefusedAtOnce() {
        val alike = List(1 shl 12) { bits ->
            (0 until 12).joinToString("") { if (bits shr it and 1 == 0) "Aa" else "BB" }
        }
        assertRefused(
            "vocab.txt has tokens that are made to be confused with each other: write the bundle again",
        ) { Vocabulary.read(alike.joinToString("\n").toByteArray()) }
    }

    private fun PieceTable.idOf(token: String): Int =
        find(token.toCharArray(), 0, token.length, token.fold(0, PieceTable::extendHash))
}
