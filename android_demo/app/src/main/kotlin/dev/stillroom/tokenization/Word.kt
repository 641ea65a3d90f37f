package dev.stillroom.tokenization

/** The word that is being read. Of one with more than [maxCodePoints] the rest is not kept: it is unknown. */
internal class Word(private val maxCodePoints: Int) {
    /** UTF-16, as the vocabulary is; only the first [length] count. */
    var chars = CharArray(START)
        private set

    /** In UTF-16 units. */
    var length = 0
        private set

    /** At most one more than are allowed. */
    var codePoints = 0
        private set

    fun append(codePoint: Int) {
        if (codePoints > maxCodePoints) return
        codePoints++
        if (length + 2 > chars.size) chars = chars.copyOf(2 * chars.size)
        if (codePoint < FIRST_PAIR) {
            chars[length++] = codePoint.toChar()
        } else {
            chars[length++] = (HIGH + (codePoint shr 10)).toChar()
            chars[length++] = (LOW + (codePoint and 0x3FF)).toChar()
        }
    }

    fun clear() {
        length = 0
        codePoints = 0
    }

    private companion object {
        const val START = 64
        const val FIRST_PAIR = 0x10000
        const val HIGH = 0xD800 - (FIRST_PAIR shr 10)
        const val LOW = 0xDC00
    }
}

/**
 * Marks that follow one another, put into the order that NFD gives them: by their place, and of one place as
 * they came. Of more than [maxMarks] the rest is not kept, since their word is too long whatever they are.
 */
internal class MarkRun(private val maxMarks: Int) {
    private var marks = IntArray(START)
    private var places = IntArray(START)
    private var count = 0

    fun add(mark: Int, place: Int) {
        if (count > maxMarks) return
        if (count == marks.size) {
            marks = marks.copyOf(2 * count)
            places = places.copyOf(2 * count)
        }
        var at = count++
        while (at > 0 && places[at - 1] > place) {
            marks[at] = marks[at - 1]
            places[at] = places[at - 1]
            at--
        }
        marks[at] = mark
        places[at] = place
    }

    fun moveTo(word: Word) {
        for (index in 0 until count) word.append(marks[index])
        count = 0
    }

    private companion object {
        const val START = 16
    }
}
