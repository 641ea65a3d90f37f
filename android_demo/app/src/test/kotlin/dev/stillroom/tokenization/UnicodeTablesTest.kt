package dev.stillroom.tokenization

import org.junit.Assert.assertEquals
import org.junit.Test

class UnicodeTablesTest {
    @Test
    fun everyFormOfAnEntryIsRead() {
        val lowercase = "41..43>61 100..104/2>101\n130=69,307"
        val tables = UnicodeTables.parse("# head\n\n[space]  # why\n9..d 20\n a0\n[lowercase]\n$lowercase\n")
        assertEquals(listOf(9 to 13, 32 to 32, 160 to 160), tables.space.map { it.first to it.last })
        val becomes = tables.lowercase.flatMap { entry ->
            (entry.first..entry.last step entry.step).map { it.toString(16) to entry.targetsOf(it).toList() }
        }
        val wanted = listOf(
            "41" to listOf(0x61), "42" to listOf(0x62), "43" to listOf(0x63),
            "100" to listOf(0x101), "102" to listOf(0x103), "104" to listOf(0x105),
            "130" to listOf(0x69, 0x307),
        )
        assertEquals(wanted, becomes)
    }

    @Test
    fun aTableHoldsWhatIsSet() {
        val table = CharTable()
        table.fill(0x4E00, 0x9FFF, 2)
        table.fill(0x10FFFE, 0x10FFFF, 3)
        table[0x4E01] = 4
        table.fill(0x60, 0x320, 5)
        table[0x61] = 6
        val low = listOf(0x5F, 0x60, 0x61, 0x62, 0x1FF, 0x320, 0x321)
        assertEquals(listOf(0, 5, 6, 5, 5, 5, 0), low.map { table[it] })
        val chinese = listOf(0x4DFF, 0x4E00, 0x4E01, 0x5001, 0x9FFF, 0xA000)
        assertEquals(listOf(0, 2, 4, 2, 2, 0), chinese.map { table[it] })
        assertEquals(listOf(0, 3, 3), listOf(0x10FFFD, 0x10FFFE, 0x10FFFF).map { table[it] })
    }
}
