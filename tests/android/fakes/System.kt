package android.system

class Os {
    companion object {
        val environment = HashMap<String, String>()

        @JvmStatic
        fun setenv(name: String, value: String, @Suppress("UNUSED_PARAMETER") overwrite: Boolean) {
            environment[name] = value
        }
    }
}
