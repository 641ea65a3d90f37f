package dev.stillroom.model

import kotlin.math.abs

/**
 * One object of a JSON file, read field by field. Every getter throws [BundleError.Malformed] that names the
 * file, the path of the field, what is there and what is wanted. [path] is as in "manifest.json: task".
 */
internal class JsonFields(value: Any?, private val path: String) {
    private val fields: Map<*, *> = value as? Map<*, *> ?: wrong(path, value, "an object")

    val keys: Set<String> get() = fields.keys.mapTo(LinkedHashSet()) { it as String }

    fun has(name: String): Boolean = name in fields

    /** Refuse other fields than these, as the schema does, and a missing one of [required]. */
    fun only(required: Set<String>, optional: Set<String> = emptySet()) {
        (required - keys).firstOrNull()?.let { throw BundleError.Malformed("$path has no $it: $MAKE_AGAIN") }
        (keys - required - optional).firstOrNull()?.let {
            throw BundleError.Malformed(
                "$path has a field ${shown(it)}, which its schema has not: $MAKE_AGAIN",
            )
        }
    }

    fun text(name: String, longest: Int): String {
        val value = fields[name] as? String ?: wrong(at(name), fields[name], "a text")
        // The schema counts code points, of which a Char may be half.
        if (value.codePointCount(0, value.length) > longest) {
            wrong(at(name), value, "at most $longest characters")
        }
        return value
    }

    fun oneOf(name: String, known: Collection<String>): String {
        val value = fields[name]
        if (value !is String || value !in known) wrong(at(name), value, "one of ${known.joinToString()}")
        return value
    }

    fun flag(name: String): Boolean =
        fields[name] as? Boolean ?: wrong(at(name), fields[name], "true or false")

    fun whole(name: String, range: LongRange): Long {
        val value = asWhole(fields[name])
        if (value == null || value !in range) {
            wrong(at(name), fields[name], "a whole number from ${range.first} to ${range.last}")
        }
        return value
    }

    fun number(name: String): Double =
        (fields[name] as? Number)?.toDouble() ?: wrong(at(name), fields[name], "a number")

    fun child(name: String): JsonFields = JsonFields(fields[name], at(name))

    fun list(name: String): List<Any?> = fields[name] as? List<*> ?: wrong(at(name), fields[name], "a list")

    fun texts(name: String, longest: Int): List<String> = list(name).mapIndexed { index, value ->
        if (value !is String || value.codePointCount(0, value.length) > longest) {
            wrong("${at(name)}[$index]", value, "a text of at most $longest characters")
        }
        value
    }

    fun wholes(name: String, range: LongRange): List<Int> = list(name).mapIndexed { index, value ->
        asWhole(value)?.takeIf { it in range }?.toInt()
            ?: wrong("${at(name)}[$index]", value, "a whole number from ${range.first} to ${range.last}")
    }

    fun children(name: String): List<JsonFields> =
        list(name).mapIndexed { index, value -> JsonFields(value, "${at(name)}[$index]") }

    /** Throw [BundleError.Malformed] about one field. */
    fun wrong(name: String, wanted: String): Nothing = wrong(at(name), fields[name], wanted)

    private fun at(name: String): String = if (path.endsWith(":")) "$path $name" else "$path.$name"
}

internal const val MAKE_AGAIN = "make the bundle again with stillroom bundle --for android"

private fun wrong(path: String, value: Any?, wanted: String): Nothing =
    throw BundleError.Malformed("$path is ${shown(value)}, wanted $wanted: $MAKE_AGAIN")

/** JSON has one kind of number: 4.0 is a whole one, too. Above 2^53 a Double stands for several. */
private fun asWhole(value: Any?): Long? = when (value) {
    is Long -> value
    is Double -> value.toLong().takeIf { it.toDouble() == value && abs(value) <= LARGEST_WHOLE_DOUBLE }
    else -> null
}

private const val LARGEST_WHOLE_DOUBLE = 9007199254740992.0
