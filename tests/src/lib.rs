//! Contract suite, process tests, real clients and the test that reads the tree.
