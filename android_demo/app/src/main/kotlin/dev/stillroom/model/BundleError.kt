package dev.stillroom.model

/**
 * Everything that can be wrong with a bundle, one line each: the value seen, the value wanted, the next step.
 *
 * A bundle may come from anywhere (a file picked by the user), so reading one throws one of these and nothing
 * else. The UI shows [message] as it is.
 */
sealed class BundleError(message: String, cause: Throwable? = null) : Exception(oneLine(message), cause) {
    /** A file is not what its format says: no JSON, no UTF-8, a field that is missing or of another type. */
    class Malformed(message: String) : BundleError(message)

    /** A file that the bundle needs is not there, or cannot be read. */
    class Missing(message: String, cause: Throwable? = null) : BundleError(message, cause)

    /** A file has another size or another sha256 than the manifest records. */
    class WrongChecksum(message: String) : BundleError(message)

    /** A file, or a count in one, is over the bounds of [Limits]. */
    class TooLarge(message: String) : BundleError(message)

    /** A file name that leads, or could lead, out of the bundle's folder. */
    class PathEscape(message: String) : BundleError(message)

    /** A schema version, a tokenizer or a kind of task that this app does not know. */
    class Unsupported(message: String) : BundleError(message)

    /** The model file is for another runtime, or for another major version of this one. */
    class WrongRuntime(message: String, cause: Throwable? = null) : BundleError(message, cause)

    /**
     * A golden vector that no model of this task can have: another count of logits, NaN, ids out of range.
     */
    class WrongGolden(message: String) : BundleError(message)

    /** The runtime does not open or run the model file. */
    class ModelFailed(message: String, cause: Throwable? = null) : BundleError(message, cause)

    /** The app's own storage cannot be written. */
    class Storage(message: String, cause: Throwable? = null) : BundleError(message, cause)
}

private const val LONGEST_MESSAGE = 400

/** A message as one line of printable characters: parts of it come from files that nobody has checked. */
private fun oneLine(message: String): String {
    val line = StringBuilder()
    for (char in message) line.append(if (char < ' ' || char in '\u007f'..'\u009f') '?' else char)
    return if (line.length <= LONGEST_MESSAGE) line.toString() else line.substring(0, LONGEST_MESSAGE) + "..."
}

/** A value from a file, short enough to be shown in a message. */
internal fun shown(value: Any?): String {
    val text = value.toString()
    return if (text.length <= 60) text else text.substring(0, 60) + "..."
}
