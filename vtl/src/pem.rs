//! Files of certificates in PEM form: read, taken apart into blocks, joined.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use client::conf::write::replace;
use ntls::certificate::Certificate;

use crate::answer::Failure;
use crate::place::make_folder;

/// Largest file that is read.
const BYTES_MAX: u64 = 1 << 20;
/// Mode of files of certificates.
pub(crate) const MODE: u32 = 0o644;

/// A certificate and the text it was read from.
#[derive(Clone, PartialEq)]
pub(crate) struct Block {
    /// The certificate.
    pub(crate) certificate: Certificate,
    /// Its PEM block with both lines around it.
    pub(crate) text: String,
}

/// Every certificate of a PEM text with its own block. Errs when there is none or one cannot be read.
pub(crate) fn blocks(pem: &[u8], origin: &str) -> Result<Vec<Block>, Failure> {
    const END: &str = "-----END CERTIFICATE-----";
    let all = Certificate::all_from_pem(pem, origin).map_err(|error| Failure(error.0))?;
    let text = String::from_utf8_lossy(pem);
    let texts: Vec<String> = text
        .split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .filter_map(|block| block.split_once(END))
        .map(|(body, _)| format!("-----BEGIN CERTIFICATE-----{body}{END}\n"))
        .collect();
    if texts.len() != all.len() {
        let found = format!("{} that can be read and {} of another form", all.len(), texts.len());
        return Err(Failure(format!("{origin}: wanted certificates in PEM, found {found}")));
    }
    Ok(all.into_iter().zip(texts).map(|(certificate, text)| Block { certificate, text }).collect())
}

/// The certificates of a file that must be there. Errs when it is missing, unreadable or holds none.
pub(crate) fn certificates(file: &Path) -> Result<Vec<Certificate>, Failure> {
    let bytes = read(file)?.ok_or_else(|| {
        Failure::new(
            format!("a certificate in {}", file.display()),
            "no such file",
            "name a file in PEM form, or make one with vtl createCert",
        )
    })?;
    Certificate::all_from_pem(&bytes, &file.display().to_string()).map_err(|error| Failure(error.0))
}

/// The blocks of a file; none when there is no file or it is empty.
pub(crate) fn blocks_of(file: &Path) -> Result<Vec<Block>, Failure> {
    let text = read(file)?.unwrap_or_default();
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    blocks(&text, &file.display().to_string())
        .map_err(|error| Failure(format!("{}; repair or remove the file", error.0)))
}

/// Writes a file of blocks, made with its folder when it is not there.
pub(crate) fn write(file: &Path, blocks: &[Block]) -> Result<(), Failure> {
    make_folder(file.parent().unwrap_or(Path::new("")))?;
    let text: String = blocks.iter().map(|block| block.text.as_str()).collect();
    Ok(replace(file, text.as_bytes(), MODE)?)
}

/// The bytes of a file, None when there is none.
pub(crate) fn read(file: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |found: String| {
        Failure::new(format!("to read {}", file.display()), found, "name a readable PEM file")
    };
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut bytes = Vec::new();
    opened.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= BYTES_MAX => Ok(Some(bytes)),
        _ => Err(failed(format!("more than {BYTES_MAX} bytes"))),
    }
}
