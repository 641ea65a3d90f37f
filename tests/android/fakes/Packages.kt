package android.content.pm

class PackageInfo {
    @JvmField val versionName: String? = "0.1.0"
}

class PackageManager {
    @Suppress("UNUSED_PARAMETER")
    fun getPackageInfo(name: String, flags: Int) = PackageInfo()
}
