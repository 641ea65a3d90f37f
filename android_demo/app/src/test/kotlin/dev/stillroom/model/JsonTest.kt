package dev.stillroom.model

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class JsonTest {
    private fun parse(text: String) = parseJson(text.toByteArray())

    private fun refused(text: String, reason: String) {
        val error = assertThrows(text, JsonError::class.java) { parse(text) }
        assertTrue("$text: ${error.message}", reason in error.message!!)
    }

    @Test
    fun valuesAreReadAsTheyAreWritten() {
        val text =
            """ {"": 0, "a": [1, -2.5, 1e3, true, false, null], "b": {"c": "\u00e9\n\ud83d\ude00/\/ é"}} """
        val wanted = mapOf(
            "a" to listOf(1L, -2.5, 1000.0, true, false, null),
            "b" to mapOf("c" to "é\n😀// é"),
            "" to 0L,
        )
        assertEquals(wanted, parse(text))
        assertEquals(Long.MAX_VALUE, parse("9223372036854775807"))
        assertEquals(9.223372036854775807e18, parse("9223372036854775808"))
        assertEquals(emptyList<Any?>(), parse("[ ]"))
        assertEquals(emptyMap<String, Any?>(), parse("{ }"))
        assertEquals(-0.0, parse("-0.0"))
    }

    @Test
    fun whatIsNotJsonIsRefused() {
        for (text in listOf(
            "", " ", "[1,]", "{\"a\":}", "[1 2]", "{a: 1}", "'a'", "tru", "[", "{\"a\"", "\"a", "nul",
            "NaN", "Infinity", "-Infinity", "[NaN]", "01x", "-", "1.", ".5", "1e", "+1", "0x10",
        )) {
            refused(text, "at character")
        }
        refused("1 2", "more text after the value")
        refused("01", "more text after the value")
        refused("{\"a\": 1, \"a\": 2}", "twice")
        refused("{\"a\": 1, \"\\u0061\": 2}", "twice")
        refused("1e400", "too large")
        refused("9".repeat(65), "64 characters")
        refused("\"\u0001\"", "control character")
        refused("\"\\x41\"", "unknown escape")
        refused("\"\\u00e\"", "hexadecimal")
        refused("\"\\u٠٠٠٠\"", "hexadecimal")
        refused("\uFEFF1", "at character 0")
    }

    @Test
    fun halvesOfSurrogatePairsAreRefused() {
        for (text in listOf("\\ud83d", "\\ude00", "\\ude00\\ud83d", "\\ud83dx", "a\\ud83d\\ud83d\\ude00")) {
            refused("\"$text\"", "surrogate")
        }
    }

    @Test
    fun textThatIsNotUtf8IsRefused() {
        for (bytes in listOf(
            byteArrayOf(34, -1, 34), byteArrayOf(34, -61, 34), byteArrayOf(34, -19, -96, -128, 34),
        )) {
            assertThrows(JsonError::class.java) { parseJson(bytes) }
        }
    }

    @Test
    fun depthAndCountAreBounded() {
        val deepest = parse("[".repeat(16) + "1" + "]".repeat(16))
        assertEquals(1L, (1..16).fold(deepest) { found, _ -> (found as List<*>)[0] })
        refused("[".repeat(17) + "1" + "]".repeat(17), "deeper than 16")
        refused("[".repeat(1_000_000), "deeper than 16")
        refused("[" + "0,".repeat(200_000) + "0]", "too many values")
    }

    @Test
    fun whatIsWrittenIsReadBack() {
        val value = linkedMapOf(
            "text" to "\"\\/\u0000\n\u007f é 😀",
            "list" to listOf(1L, 0.1, -1.5e-7, null, true),
            "empty" to emptyMap<String, Any>(),
        )
        val written = writeJson(value)
        assertEquals(value, parse(written))
        assertTrue(written.all { it in ' '..'~' })
        assertEquals("0.1", writeJson(0.1f))
        for (bad in listOf(Double.NaN, Float.POSITIVE_INFINITY, 'c', listOf(Double.NEGATIVE_INFINITY))) {
            assertThrows(IllegalArgumentException::class.java) { writeJson(bad) }
        }
    }
}
