package dev.stillroom.tokenization

/**
 * What to do with each character: BERT's four rules and the split into words, as one lookup.
 *
 * An action is an Int: its kind in the lowest bits, then a mark's place in NFD's order, then the code point
 * that the character becomes (0: it stays as it is). All rules look at one character at a time, but for the
 * order of marks, which [WordSplitter] sees to.
 */
internal class Normalizer(options: WordPieceOptions, tables: UnicodeTables) {
    private val words = CharTable() // what a character is to the splitter, once it is normalized
    private val chinese = CharTable() // not 0 where handleChineseChars applies
    private val lowered = HashMap<Int, IntArray>()
    private val actions = CharTable()
    private val several = ArrayList<IntArray>()

    init {
        for (table in arrayOf(words, actions)) {
            table.fill(tables.space, SPACE)
            table.fill(tables.punctuation, ALONE)
        }
        if (options.handleChineseChars) {
            for (table in arrayOf(chinese, actions)) table.fill(tables.cjk, ALONE)
        }
        // From the last rule to the first, so that the first has the last word.
        if (options.lowercase) lowercase(tables)
        if (options.stripAccents) stripAccents(tables)
        if (options.cleanText) actions.fill(tables.removed, DROP)
    }

    /** The action for a code point. */
    fun actionOf(codePoint: Int): Int = actions[codePoint]

    /** The actions for the parts of a character whose action is of kind [SEVERAL]. */
    fun partsOf(action: Int): IntArray = several[targetOf(action)]

    private fun lowercase(tables: UnicodeTables) = tables.lowercase.forEachPoint { point, targets ->
        lowered[point] = targets
        actions[point] = become(targets)
    }

    private fun stripAccents(tables: UnicodeTables) {
        tables.order.forEachPoint { mark, place -> words[mark] = MARK or (place[0] shl ORDER_SHIFT) }
        actions.fill(tables.dropped, DROP)
        actions.fill(tables.droppedStarters, BARRIER)
        actions.fill(HANGUL_FIRST, HANGUL_LAST, HANGUL)
        tables.order.forEachPoint { mark, _ -> actions[mark] = words[mark] }
        tables.decomposed.forEachPoint { point, parts ->
            val becomes = become(parts.flatMap { (lowered[it] ?: intArrayOf(it)).asList() }.toIntArray())
            // A Chinese character stands alone as what it becomes: U+F900 is another way to write U+8C48.
            actions[point] = becomes or chinese[point]
        }
    }

    /** The action of a character that becomes [targets]. */
    private fun become(targets: IntArray): Int {
        val parts = IntArray(targets.size) { words[targets[it]] or (targets[it] shl TARGET_SHIFT) }
        if (parts.size == 1) return parts[0]
        several += parts
        return SEVERAL or ((several.size - 1) shl TARGET_SHIFT)
    }

    companion object {
        const val LETTER = 0 // part of a word; also what no rule knows
        const val SPACE = 1 // ends a word
        const val ALONE = 2 // a word by itself
        const val DROP = 3 // gone
        const val BARRIER = 4 // gone, but marks on either side are not put into order together
        const val MARK = 5 // part of a word, in its place among the marks beside it
        const val HANGUL = 6 // a Hangul syllable, which becomes two or three letters by arithmetic
        const val SEVERAL = 7 // becomes several characters

        const val HANGUL_FIRST = 0xAC00
        const val HANGUL_LAST = 0xD7A3

        private const val KIND_MASK = 7
        private const val ORDER_SHIFT = 3
        private const val ORDER_MASK = 31
        private const val TARGET_SHIFT = 8

        fun kindOf(action: Int): Int = action and KIND_MASK

        /** Where NFD puts a mark among others: before those with a higher number. */
        fun orderOf(action: Int): Int = action shr ORDER_SHIFT and ORDER_MASK

        /** What the character becomes; 0: it stays. */
        fun targetOf(action: Int): Int = action ushr TARGET_SHIFT

        private fun CharTable.fill(entries: List<UnicodeTables.Entry>, value: Int) {
            for (entry in entries) fill(entry.first, entry.last, value)
        }

        private inline fun List<UnicodeTables.Entry>.forEachPoint(use: (Int, IntArray) -> Unit) {
            for (entry in this) {
                for (point in entry.first..entry.last step entry.step) use(point, entry.targetsOf(point))
            }
        }
    }
}
