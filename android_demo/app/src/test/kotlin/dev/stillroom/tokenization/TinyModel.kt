package dev.stillroom.tokenization

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows

/** Words enough for the tests; the id of each is its place. */
internal val TINY_VOCABULARY = listOf(
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    "hello", "world", "cafe", "café", "a", "##a", "un", "##aff", "##able", ",", "!", "؟", "+", "$", "[", "]",
    "😀", "##😀", "i\u0307", "σσ", "中", "文", "中文", "豈", "각", "\u1100\u1161", "\u1100\u1161\u11A8",
    "a\uFFFD", "a\uD834\uDD65\u302E", "a\u302E\uD834\uDD65",
)

internal fun id(token: String): Int = TINY_VOCABULARY.indexOf(token)

/** The settings of BERT's uncased model, but for what is given. */
internal fun options(
    lowercase: Boolean = true,
    stripAccents: Boolean = true,
    cleanText: Boolean = true,
    handleChineseChars: Boolean = true,
    prefix: String = "##",
    maxWordChars: Int = 100,
    added: Map<String, Int> = mapOf("[MASK]" to id("[MASK]")),
) = WordPieceOptions(
    lowercase, stripAccents, cleanText, handleChineseChars, prefix, maxWordChars,
    unknownId = id("[UNK]"), clsId = id("[CLS]"), sepId = id("[SEP]"), added = added,
)

internal fun tokenizer(options: WordPieceOptions = options(), maxLength: Int = 64) =
    Tokenizer(Vocabulary.read(TINY_VOCABULARY.joinToString("\n").toByteArray()), options, maxLength)

/** An encoding in words, to be read. */
internal fun words(encoding: Encoding): String = encoding.ids.joinToString(" ") { TINY_VOCABULARY[it] }

internal fun assertRefused(message: String, call: () -> Unit) {
    assertEquals(message, assertThrows(IllegalArgumentException::class.java) { call() }.message)
}
