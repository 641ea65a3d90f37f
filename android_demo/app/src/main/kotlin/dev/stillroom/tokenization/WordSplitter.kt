package dev.stillroom.tokenization

/**
 * A text's words, normalized: each goes to [wordPiece] as soon as it ends.
 *
 * Nothing is allocated for a character or for a word. Not for two threads at once.
 */
internal class WordSplitter(private val normalizer: Normalizer, private val wordPiece: WordPiece) {
    private val word = Word(wordPiece.maxWordChars)
    private val marks = MarkRun(wordPiece.maxWordChars)

    /** Appends the ids of [text] from [from] until [to] to [ids], as long as those want more. */
    fun split(text: String, from: Int, to: Int, ids: IdBuffer) {
        var at = from
        while (at < to && !ids.isFull) {
            var codePoint = text[at++].code
            if (codePoint in FIRST_HIGH..LAST_LOW) {
                // A lone surrogate is what it becomes wherever text is written as UTF-8 with replacement.
                codePoint = if (isPair(text, at - 1, to)) combine(codePoint, text[at++].code) else REPLACEMENT
            }
            apply(normalizer.actionOf(codePoint), codePoint, ids)
        }
        endWord(ids)
    }

    private fun apply(action: Int, codePoint: Int, ids: IdBuffer) {
        val target = Normalizer.targetOf(action)
        when (Normalizer.kindOf(action)) {
            Normalizer.LETTER -> letter(if (target == 0) codePoint else target)
            Normalizer.SPACE -> endWord(ids)
            Normalizer.ALONE -> {
                endWord(ids)
                letter(if (target == 0) codePoint else target)
                endWord(ids)
            }
            Normalizer.DROP -> Unit
            Normalizer.BARRIER -> marks.moveTo(word)
            Normalizer.MARK -> marks.add(if (target == 0) codePoint else target, Normalizer.orderOf(action))
            Normalizer.HANGUL -> hangul(codePoint - Normalizer.HANGUL_FIRST)
            Normalizer.SEVERAL -> for (part in normalizer.partsOf(action)) apply(part, 0, ids)
        }
    }

    private fun letter(codePoint: Int) {
        marks.moveTo(word)
        word.append(codePoint)
    }

    private fun hangul(syllable: Int) {
        letter(LEAD + syllable / (VOWELS * TAILS))
        letter(VOWEL + syllable / TAILS % VOWELS)
        val tail = syllable % TAILS
        if (tail > 0) letter(TAIL + tail)
    }

    private fun endWord(ids: IdBuffer) {
        marks.moveTo(word)
        if (word.codePoints == 0) return
        wordPiece.split(word, ids)
        word.clear()
    }

    private companion object {
        const val FIRST_HIGH = 0xD800
        const val FIRST_LOW = 0xDC00
        const val LAST_LOW = 0xDFFF
        const val REPLACEMENT = 0xFFFD

        // Hangul letters, as Unicode numbers them: a syllable is lead, vowel, and one of 27 tails or none.
        const val LEAD = 0x1100
        const val VOWEL = 0x1161
        const val TAIL = 0x11A7
        const val VOWELS = 21
        const val TAILS = 28

        fun isPair(text: String, at: Int, to: Int): Boolean =
            text[at].code < FIRST_LOW && at + 1 < to && text[at + 1].code in FIRST_LOW..LAST_LOW

        fun combine(high: Int, low: Int): Int =
            0x10000 + ((high - FIRST_HIGH) shl 10) + (low - FIRST_LOW)
    }
}
