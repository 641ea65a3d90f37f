package dev.stillroom.model

import dev.stillroom.tokenization.Tokenizer
import dev.stillroom.tokenization.Vocabulary
import java.nio.ByteBuffer
import java.security.MessageDigest

/** A checked bundle. [source] gives the model file to the runtime, which opens it. */
class Bundle internal constructor(
    val manifest: Manifest,
    val tokenizer: Tokenizer,
    val goldens: List<Golden>,
    val source: BundleSource,
)

/**
 * Read a bundle: manifest, sizes, checksums, vocabulary, labels and golden vectors, everything of bounded
 * size. [on] the runtime that will open its model, by default this app's.
 *
 * Takes as long as a sha256 over the model does: call it off the main thread. Throws [BundleError] when
 * anything does not fit, and nothing else.
 */
fun openBundle(source: BundleSource, on: Runtime = runtime): Bundle {
    val manifest = readManifest(source.read(BundleFiles.MANIFEST, Limits.MANIFEST_BYTES), on)
    for (listed in manifest.files) checkSize(source, listed)
    for (listed in manifest.files) checkContent(source, listed)
    checkLabels(source.read(BundleFiles.LABELS, Limits.LABELS_BYTES), manifest.task.labels)
    val vocabulary = readVocabulary(source.read(BundleFiles.VOCABULARY, Limits.VOCABULARY_BYTES), manifest)
    val goldens = readGoldens(source.read(BundleFiles.GOLDEN, Limits.GOLDEN_BYTES), manifest, vocabulary.size)
    val tokenizer = try {
        Tokenizer(vocabulary, manifest.wordPiece, manifest.task.maxLength)
    } catch (error: IllegalArgumentException) {
        throw BundleError.Malformed(error.message!!)
    }
    return Bundle(manifest, tokenizer, goldens, source)
}

private fun checkSize(source: BundleSource, listed: ListedFile) {
    val largest = when (listed.file) {
        BundleFiles.VOCABULARY -> Limits.VOCABULARY_BYTES.toLong()
        BundleFiles.LABELS -> Limits.LABELS_BYTES.toLong()
        BundleFiles.GOLDEN -> Limits.GOLDEN_BYTES.toLong()
        else -> Limits.MODEL_BYTES
    }
    if (listed.sizeBytes > largest) {
        throw BundleError.TooLarge(
            "${listed.file} has ${listed.sizeBytes} bytes, at most $largest are read: $MAKE_AGAIN",
        )
    }
    val found = source.sizeBytes(listed.file)
    if (found != listed.sizeBytes) {
        throw BundleError.WrongChecksum(
            "${listed.file} has $found bytes, the manifest says ${listed.sizeBytes}: copy the bundle again",
        )
    }
}

private fun checkContent(source: BundleSource, listed: ListedFile) {
    val found = sha256(source.map(listed.file))
    if (found != listed.sha256) {
        throw BundleError.WrongChecksum(
            "${listed.file} has sha256 ${found.take(12)}..., the manifest says " +
                "${listed.sha256.take(12)}...: copy the bundle again",
        )
    }
}

/** Hex sha256 of a buffer's content, which is not copied as a whole. */
internal fun sha256(content: ByteBuffer): String {
    val digest = MessageDigest.getInstance("SHA-256")
    digest.update(content.duplicate())
    return digest.digest().joinToString("") { byte -> (byte.toInt() and 0xff).toString(16).padStart(2, '0') }
}

private fun checkLabels(bytes: ByteArray, labels: List<String>) {
    val wanted = labels.joinToString("") { "$it\n" }.toByteArray(Charsets.UTF_8)
    if (!bytes.contentEquals(wanted)) {
        throw BundleError.Malformed(
            "labels.txt does not name the manifest's ${labels.size} labels: $MAKE_AGAIN",
        )
    }
}

private fun readVocabulary(bytes: ByteArray, manifest: Manifest): Vocabulary {
    val lines = bytes.count { it == '\n'.code.toByte() }
    if (lines > Limits.VOCABULARY_TOKENS) {
        throw BundleError.TooLarge(
            "vocab.txt has $lines tokens, at most ${Limits.VOCABULARY_TOKENS} are read: $MAKE_AGAIN",
        )
    }
    val vocabulary = try {
        Vocabulary.read(bytes)
    } catch (error: IllegalArgumentException) {
        throw BundleError.Malformed(error.message!!)
    }
    val options = manifest.wordPiece
    val used = mapOf(
        "unknown_id" to options.unknownId, "cls_id" to options.clsId, "sep_id" to options.sepId,
        "pad_id" to manifest.padId,
    ) + options.added
    for ((name, id) in used) {
        if (id >= vocabulary.size) {
            throw BundleError.Malformed(
                "${shown(name)} is $id, vocab.txt has ${vocabulary.size} tokens: $MAKE_AGAIN",
            )
        }
    }
    return vocabulary
}
