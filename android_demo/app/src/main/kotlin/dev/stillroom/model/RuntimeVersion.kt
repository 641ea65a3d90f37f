package dev.stillroom.model

/**
 * The first model file that a runtime opens. Throws [BundleError.WrongRuntime] when there is none, or when it
 * was made for another runtime or for another major version of this one.
 */
internal fun chooseModel(models: List<ModelFile>, on: Runtime): ModelFile {
    if (models.isEmpty()) throw BundleError.Malformed("manifest.json names no model file: $MAKE_AGAIN")
    val model = models.firstOrNull { it.target in on.target } ?: throw BundleError.WrongRuntime(
        "the bundle holds a model for ${models.joinToString { it.target }}, this app opens " +
            "${on.target.joinToString()}: export it as ${on.target.first()} or build the app's other flavour",
    )
    val major = numbers(model.runtimeVersion).firstOrNull()
    if (model.runtimeName != on.name || major == null || major != numbers(on.version).firstOrNull()) {
        throw BundleError.WrongRuntime(
            "${model.file} was made for ${shown(model.runtimeName)} ${shown(model.runtimeVersion)}, this " +
                "app has ${on.name} ${on.version}: export it again, or build the app with that runtime",
        )
    }
    return model
}

/**
 * A line about a runtime older than the one the model file was made for, else null. No error: most files are
 * read by older runtimes all the same, and the golden vectors tell whether this one answers as it should.
 */
internal fun olderNotice(model: ModelFile, on: Runtime): String? {
    if (!isOlder(numbers(on.version), numbers(model.runtimeVersion))) return null
    val made = "${model.runtimeName} ${shown(model.runtimeVersion)}"
    return "${model.file} was made for $made, this app has the older ${on.version}: " +
        "trust it if the golden vectors agree"
}

private fun isOlder(here: List<Int>, made: List<Int>): Boolean {
    for (at in 0 until maxOf(here.size, made.size)) {
        val difference = (here.getOrNull(at) ?: 0).compareTo(made.getOrNull(at) ?: 0)
        if (difference != 0) return difference < 0
    }
    return false
}

/** "1.4.1+cpu" -> [1, 4, 1]. Nine digits fit an Int; what is longer is no version. */
private fun numbers(version: String): List<Int> =
    Regex("[0-9]+").findAll(version.substringBefore('+')).map { it.value.take(9).toInt() }.toList()
