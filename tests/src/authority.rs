//! A certificate authority of a test, as operators have one: `openssl` and two files.
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::expect_ok;

/// What the authority is and what it issues; hosts come from the request.
const SETTINGS: &str = "[req]\ndistinguished_name = name\nx509_extensions = authority\nprompt = no\n\
    [name]\nCN = lab authority\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n\
    [issued]\nbasicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
    extendedKeyUsage = serverAuth, clientAuth\n";

/// A folder with the authority's key and certificate, and what it has issued.
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// An authority that ends in so many days, in a folder of its own below this one.
    ///
    /// # Panics
    /// When `openssl` cannot make it.
    pub fn new(below: &Path, days: u32) -> Self {
        let folder = tempfile::tempdir_in(below).expect("a folder can be made").keep();
        std::fs::write(folder.join("settings"), SETTINGS).expect("a file can be written");
        let authority = Self { folder };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let files = ["-config", "settings", "-keyout", "key.pem", "-out", "ca.pem"];
        authority.openssl(&[&["req", "-x509", "-days", &days.to_string()][..], &key, &files].concat());
        authority
    }

    /// The file of its certificate.
    pub fn certificate(&self) -> String {
        self.folder.join("ca.pem").display().to_string()
    }

    /// Issues a certificate of so many days for a request; its file.
    ///
    /// # Panics
    /// When `openssl` refuses the request.
    pub fn issue(&self, request: &Path, days: u32) -> String {
        let number = std::fs::read_dir(&self.folder).expect("the folder is there").count().to_string();
        let (request, issued) = (request.display().to_string(), format!("issued-{number}.pem"));
        let by = ["-CA", "ca.pem", "-CAkey", "key.pem", "-set_serial", &number];
        let what = ["-copy_extensions", "copy", "-extfile", "settings", "-extensions", "issued"];
        let files = ["-in", &request, "-out", &issued, "-days", &days.to_string()];
        self.openssl(&[&["x509", "-req"][..], &by, &what, &files].concat());
        self.folder.join(issued).display().to_string()
    }

    fn openssl(&self, words: &[&str]) {
        let output = Command::new("openssl").args(words).current_dir(&self.folder).output();
        expect_ok(&output.expect("openssl starts (install it)"), &format!("openssl {}", words.join(" ")));
    }
}
