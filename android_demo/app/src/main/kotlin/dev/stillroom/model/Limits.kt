package dev.stillroom.model

/** Bounds on what is read, checked before anything of that size is allocated. */
internal object Limits {
    const val MANIFEST_BYTES = 1 shl 20
    const val GOLDEN_BYTES = 4 shl 20

    /** The largest published WordPiece vocabulary, LaBSE's, has half a million tokens in 5 MB. */
    const val VOCABULARY_BYTES = 8 shl 20
    const val VOCABULARY_TOKENS = 600_000
    const val LABELS_BYTES = 1 shl 20

    /** The schema's own bound. A memory map holds half of it: see [BundleSource.map]. */
    const val MODEL_BYTES = 4L shl 30

    /** Files of a bundle, the manifest aside. Four are needed. */
    const val FILES = 16

    const val LABELS = 100_000
    const val GOLDENS = 1_000
    const val TOKENS = 8192L
}
