package dev.stillroom.tokenization

/**
 * What Hugging Face's library does with each Unicode character, from the resource unicode.txt.
 *
 * java.lang.Character and java.text.Normalizer are not used: they follow the Unicode version of the JVM or of
 * the phone, and a model must see the same tokens on all of them. Python writes the file:
 * `python -m stillroom.export.android.unicode_tables`.
 */
internal class UnicodeTables private constructor(private val sections: Map<String, List<Entry>>) {

    /** Code points [first]..[last], each [step]-th one, and what becomes of them; nothing for a mere set. */
    class Entry(
        val first: Int,
        val last: Int,
        val step: Int,
        private val targets: IntArray,
        private val shifts: Boolean,
    ) {
        /** What [codePoint], one of this entry's, becomes. */
        fun targetsOf(codePoint: Int): IntArray =
            if (shifts) intArrayOf(targets[0] + (codePoint - first)) else targets
    }

    val removed get() = section("removed")
    val space get() = section("space")
    val punctuation get() = section("punctuation")
    val cjk get() = section("cjk")
    val lowercase get() = section("lowercase")
    val decomposed get() = section("decomposed")
    val dropped get() = section("dropped")
    val droppedStarters get() = section("dropped-starters")
    val order get() = section("order")

    private fun section(name: String): List<Entry> = sections.getValue(name)

    companion object {
        // An absolute path, since R8 renames packages of classes but not of resources.
        private const val RESOURCE = "/dev/stillroom/tokenization/unicode.txt"

        fun load(): UnicodeTables {
            val stream = UnicodeTables::class.java.getResourceAsStream(RESOURCE)
            checkNotNull(stream) { "no $RESOURCE in the app: keep src/main/resources in its build" }
            return parse(stream.use { it.readBytes() }.toString(Charsets.UTF_8))
        }

        /** Reads [text]: "[section]  # why", then its entries between spaces, in lines of any number. */
        fun parse(text: String): UnicodeTables {
            val sections = HashMap<String, MutableList<Entry>>()
            var entries = ArrayList<Entry>()
            for (line in text.lineSequence().map { it.substringBefore('#').trim() }) {
                if (line.startsWith("[")) {
                    entries = ArrayList()
                    sections[line.removeSurrounding("[", "]")] = entries
                } else if (line.isNotEmpty()) {
                    line.split(' ').mapTo(entries, ::parseEntry)
                }
            }
            return UnicodeTables(sections)
        }

        /** A, A..B or A..B/2, then nothing, =C,D (each becomes that) or >C (C and those after it). */
        private fun parseEntry(entry: String): Entry {
            val shifts = '>' in entry
            val sign = if (shifts) '>' else '='
            val points = entry.substringBefore(sign)
            val range = points.substringBefore('/').split("..").map { it.toInt(HEX) }
            val step = points.substringAfter('/', "1").toInt(HEX)
            val targets = entry.substringAfter(sign, "").split(',').filter { it.isNotEmpty() }
            val becomes = IntArray(targets.size) { targets[it].toInt(HEX) }
            return Entry(range.first(), range.last(), step, becomes, shifts)
        }

        private const val HEX = 16
    }
}
