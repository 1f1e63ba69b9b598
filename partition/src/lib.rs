//! PKCS#11 object logic, cryptography, roles, seal: the security boundary.
