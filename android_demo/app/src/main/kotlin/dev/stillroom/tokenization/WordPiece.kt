package dev.stillroom.tokenization

/** Words into pieces: the longest that the vocabulary has, again and again; or one unknown token instead. */
internal class WordPiece(
    vocabulary: Vocabulary,
    prefix: String,
    val maxWordChars: Int,
    private val unknownId: Int,
) {
    private val words = vocabulary.words
    private val continuations = vocabulary.continuations(prefix)
    private val hashes = IntArray(1 + maxOf(words.longest, continuations.longest))

    /** Appends the ids of [word]'s pieces to [ids]. */
    fun split(word: Word, ids: IdBuffer) {
        val before = ids.count
        var at = 0
        while (at < word.length && word.codePoints <= maxWordChars) {
            val end = addLongest(if (at == 0) words else continuations, word, at, ids)
            if (end < 0) break
            at = end
        }
        if (at < word.length) {
            ids.cutTo(before)
            ids.add(unknownId)
        }
    }

    /** Appends the longest piece of [word] that begins at [from]; where it ends, or -1 when there is none. */
    private fun addLongest(pieces: PieceTable, word: Word, from: Int, ids: IdBuffer): Int {
        val chars = word.chars
        val longest = minOf(pieces.longest, word.length - from)
        for (length in 1..longest) {
            hashes[length] = PieceTable.extendHash(hashes[length - 1], chars[from + length - 1])
        }
        for (length in longest downTo 1) {
            val id = pieces.find(chars, from, from + length, hashes[length])
            if (id >= 0) {
                ids.add(id)
                return from + length
            }
        }
        return -1
    }
}
