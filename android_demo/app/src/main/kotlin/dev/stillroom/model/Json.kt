package dev.stillroom.model

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

// Why not a library: org.json is Android's alone, so nothing that uses it could be tested on a plain JVM, and
// kotlinx.serialization would outweigh the rest of this app. Neither bounds what it reads.

/** Text that is not JSON, or more of it than is read. [message] says where, in characters from the start. */
internal class JsonError(message: String) : Exception(message)

/**
 * Parse UTF-8 JSON strictly into Map, List, String, Long, Double, Boolean and null.
 *
 * Throws [JsonError] on anything else than one JSON value: bad UTF-8, NaN, a number that is not finite, a key
 * given twice, a lone surrogate, or more than [maxDepth] levels or [maxValues] values. The caller bounds
 * [bytes].
 */
internal fun parseJson(bytes: ByteArray, maxDepth: Int = 16, maxValues: Int = 200_000): Any? {
    val text = try {
        Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes))
    } catch (_: CharacterCodingException) {
        throw JsonError("not UTF-8")
    }
    return JsonParser(text, maxDepth, maxValues).whole()
}

private const val LONGEST_NUMBER = 64

private class JsonParser(
    private val text: CharSequence,
    private val maxDepth: Int,
    private var valuesLeft: Int,
) {
    private var at = 0
    private var depth = 0

    fun whole(): Any? {
        val value = value()
        skipSpace()
        if (at < text.length) fail("more text after the value")
        return value
    }

    private fun value(): Any? {
        if (--valuesLeft < 0) fail("too many values")
        skipSpace()
        return when (peek()) {
            '{' -> nested(::objectValue)
            '[' -> nested(::arrayValue)
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun <T> nested(read: () -> T): T {
        if (++depth > maxDepth) fail("nested deeper than $maxDepth levels")
        at++
        return read().also { depth-- }
    }

    private fun objectValue(): Map<String, Any?> {
        if (closes('}')) return emptyMap()
        val found = LinkedHashMap<String, Any?>()
        do {
            skipSpace()
            if (peek() != '"') fail("a key is wanted")
            val key = string()
            if (key in found) fail("the key ${shown(key)} is there twice")
            skipSpace()
            take(':')
            found[key] = value()
        } while (continues('}'))
        return found
    }

    private fun arrayValue(): List<Any?> {
        if (closes(']')) return emptyList()
        val found = ArrayList<Any?>(2)
        do found.add(value()) while (continues(']'))
        return found
    }

    private fun closes(end: Char): Boolean {
        skipSpace()
        return (peek() == end).also { if (it) at++ }
    }

    /** True after a comma, false after the end of the list or object. */
    private fun continues(end: Char): Boolean {
        if (closes(end)) return false
        take(',')
        return true
    }

    private fun string(): String {
        take('"')
        val found = StringBuilder()
        while (true) {
            val char = peek()
            at++
            when {
                char == '"' -> break
                char == '\\' -> found.append(escape())
                char < ' ' -> fail("a control character in a string")
                else -> found.append(char)
            }
        }
        if (hasLoneSurrogate(found)) fail("half of a surrogate pair in a string")
        return found.toString()
    }

    private fun escape(): Char {
        val char = peek()
        at++
        return when (char) {
            '"', '\\', '/' -> char
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> hexadecimal()
            else -> fail("an unknown escape \\$char")
        }
    }

    private fun hexadecimal(): Char {
        var code = 0
        repeat(4) {
            val char = peek()
            // Character.digit would take digits of other scripts, too.
            val digit = if (char < '\u0080') Character.digit(char, 16) else -1
            if (digit < 0) fail("four hexadecimal digits are wanted after \\u")
            code = code * 16 + digit
            at++
        }
        return code.toChar()
    }

    private fun number(): Any {
        val start = at
        if (at < text.length && text[at] == '-') at++
        if (at < text.length && text[at] == '0') at++ else digits()
        var whole = true
        if (at < text.length && text[at] == '.') {
            whole = false
            at++
            digits()
        }
        if (at < text.length && (text[at] == 'e' || text[at] == 'E')) {
            whole = false
            at++
            if (at < text.length && (text[at] == '+' || text[at] == '-')) at++
            digits()
        }
        if (at - start > LONGEST_NUMBER) fail("a number of over $LONGEST_NUMBER characters")
        val written = text.subSequence(start, at).toString()
        if (whole) written.toLongOrNull()?.let { return it }
        val number = written.toDouble()
        if (number.isInfinite()) fail("the number ${shown(written)} is too large")
        return number
    }

    private fun digits() {
        val start = at
        while (at < text.length && text[at] in '0'..'9') at++
        if (at == start) fail("a value is wanted")
    }

    private fun <T> word(word: String, value: T): T {
        for (char in word) take(char)
        return value
    }

    private fun take(char: Char) {
        if (peek() != char) fail("$char is wanted")
        at++
    }

    private fun peek(): Char = if (at < text.length) text[at] else fail("the text ends too early")

    private fun skipSpace() {
        while (at < text.length && text[at] in " \n\r\t") at++
    }

    private fun fail(reason: String): Nothing = throw JsonError("$reason at character $at")
}

private fun hasLoneSurrogate(text: CharSequence): Boolean {
    var at = 0
    while (at < text.length) {
        val pair = text[at].isHighSurrogate() && at + 1 < text.length && text[at + 1].isLowSurrogate()
        if (!pair && text[at].isSurrogate()) return true
        at += if (pair) 2 else 1
    }
    return false
}
