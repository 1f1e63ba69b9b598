//! What links are made with: fingerprints of certificate, key and trusted certificates, so that a change of one of the
//! files is seen whatever its time says.
use std::path::Path;

use crate::certificate::fingerprint;
use crate::links::LinkSettings;

/// The three files as they are now; a file that cannot be read is as good as an empty one.
#[derive(PartialEq, Eq)]
pub(crate) struct Material([[u8; 32]; 3]);

impl Material {
    /// Reads the files of the settings. Of the key only a hash is kept, and only in memory.
    pub(crate) fn of(settings: &LinkSettings) -> Self {
        Self(
            [&settings.certificate_file, &settings.key_file, &settings.server_ca_file].map(|file| read(file)),
        )
    }
}

fn read(file: &Path) -> [u8; 32] {
    let bytes = zeroize::Zeroizing::new(std::fs::read(file).unwrap_or_default());
    fingerprint(&bytes)
}
