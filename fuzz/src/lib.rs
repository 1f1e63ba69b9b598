//! Fuzz targets that run on a stable toolchain.
