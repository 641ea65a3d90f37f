package dev.stillroom.model

/**
 * Maps, lists, strings, numbers, booleans and null as JSON in ASCII: what is not, is written as an escape.
 *
 * Throws [IllegalArgumentException] on another type and on a number that is not finite, which JSON has not.
 */
fun writeJson(value: Any?): String = StringBuilder().also { append(it, value) }.toString()

private fun append(out: StringBuilder, value: Any?) {
    when (value) {
        null, is Boolean, is Int, is Long -> out.append(value.toString())
        is Float -> appendNumber(out, value.isFinite(), value)
        is Double -> appendNumber(out, value.isFinite(), value)
        is String -> appendString(out, value)
        is Map<*, *> -> appendAll(out, '{', value.entries, '}') { (key, inner) ->
            appendString(out, key as String)
            out.append(": ")
            append(out, inner)
        }
        is List<*> -> appendAll(out, '[', value, ']') { append(out, it) }
        else -> throw IllegalArgumentException("cannot write ${value.javaClass.simpleName} as JSON")
    }
}

private fun <T> appendAll(out: StringBuilder, open: Char, items: Iterable<T>, close: Char, one: (T) -> Unit) {
    out.append(open)
    items.forEachIndexed { index, item ->
        if (index > 0) out.append(", ")
        one(item)
    }
    out.append(close)
}

private fun appendNumber(out: StringBuilder, finite: Boolean, value: Number) {
    require(finite) { "$value cannot be written as JSON" }
    out.append(value.toString())
}

private fun appendString(out: StringBuilder, text: String) {
    out.append('"')
    for (char in text) {
        when {
            char == '"' || char == '\\' -> out.append('\\').append(char)
            char in ' '..'~' -> out.append(char)
            else -> out.append("\\u").append(char.code.toString(16).padStart(4, '0'))
        }
    }
    out.append('"')
}
