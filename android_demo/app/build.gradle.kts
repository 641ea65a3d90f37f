import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "dev.stillroom.demo"
    compileSdk = 35

    defaultConfig {
        applicationId = "dev.stillroom.demo"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "0.1.0"
    }

    // One APK runs models with one library: `gradle assembleOnnxruntimeRelease`.
    flavorDimensions += "runtime"
    productFlavors {
        create("onnxruntime") {
            dimension = "runtime"
            isDefault = true
        }
        create("executorch") {
            dimension = "runtime"
            applicationIdSuffix = ".executorch"
        }
    }

    // An APK per ABI: each holds the runtime's library once. An app bundle (.aab) does the same by itself.
    splits {
        abi {
            isEnable = true
            reset()
            include("arm64-v8a", "x86_64")
            isUniversalApk = false
        }
    }

    androidResources {
        // A model is memory-mapped where it lies in the APK, so it may not be compressed there.
        noCompress += listOf("onnx", "ort", "pte")
    }

    packaging {
        jniLibs {
            // Libraries stay in the APK, uncompressed and aligned to 16 KB pages, and are loaded from there.
            useLegacyPackaging = false
        }
        resources {
            // What only reflection reads; the app uses none.
            excludes += setOf("/kotlin/**", "/META-INF/*.kotlin_module", "/META-INF/*.version", "DebugProbesKt.bin")
        }
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
            // To try the release build on a phone; sign your own app with your own key.
            signingConfig = signingConfigs.getByName("debug")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
    }
}

dependencies {
    "onnxruntimeImplementation"(libs.onnxruntime.android)
    "executorchImplementation"(libs.executorch.android)

    testImplementation(libs.junit)
}
