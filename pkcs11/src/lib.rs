//! libhatoki.so: PKCS#11 with high availability.
