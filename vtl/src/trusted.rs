//! The certificates of appliances that this client trusts: one file that the module reads, and beside it one file for
//! each appliance that says which of them are its own, so that they can be taken out again.

use std::path::{Path, PathBuf};

use client::conf::options::SERVER_CA;
use client::conf::{Configuration, Document, Server};
use ntls::certificate::Certificate;

use crate::answer::Failure;
use crate::pem::{self, Block};
use crate::place::Place;

/// `ServerCAFile`. A configuration that names none is made to name the usual one, for other readers of the file.
pub(crate) fn file(
    place: &Place,
    document: &mut Document,
    configuration: &Configuration,
) -> Result<PathBuf, Failure> {
    if document.value(SERVER_CA.section, SERVER_CA.key).is_some_and(|value| !value.is_empty()) {
        return Ok(configuration.server_ca.clone());
    }
    let path = place.join(SERVER_CA.default);
    document.set(SERVER_CA.section, SERVER_CA.key, crate::place::text(&path)?)?;
    Ok(path)
}

/// Trusts more certificates and notes that they are this server's. Says which fingerprints are new.
pub(crate) fn add(
    place: &Place,
    file: &Path,
    server: &Server,
    blocks: &[Block],
) -> Result<Vec<String>, Failure> {
    let own = own_file(place, server);
    let noted = join(pem::blocks_of(&own)?, blocks);
    let trusted = pem::blocks_of(file)?;
    let all = join(trusted.clone(), blocks);
    let added = fingerprints(all.iter().filter(|block| !holds(&trusted, block)));
    // The note first: nothing is trusted that no note tells of, also when this is cut off.
    pem::write(&own, &noted)?;
    if !added.is_empty() {
        pem::write(file, &all)?;
    }
    Ok(added)
}

/// Trusts other certificates of a server in place of those that are noted as its own. `ServerCAFile` is written once, so
/// that at each moment the old ones or the new ones are trusted. Whoever is cut off leaves a note of all that may be in
/// that file, and running it again ends as it would have ended. Says which fingerprints went.
pub(crate) fn exchange(
    place: &Place,
    file: &Path,
    server: &Server,
    others: &[Server],
    blocks: &[Block],
) -> Result<Vec<String>, Failure> {
    let own = own_file(place, server);
    let going = noted_alone(place, server, others)?;
    pem::write(&own, &join(pem::blocks_of(&own)?, blocks))?;
    let before = pem::blocks_of(file)?;
    let rest: Vec<Block> = before.iter().filter(|block| !holds(&going, block)).cloned().collect();
    let all = join(rest, blocks);
    if all != before {
        pem::write(file, &all)?;
    }
    pem::write(&own, blocks)?;
    let removed = |block: &&Block| holds(&going, block) && !holds(blocks, block);
    Ok(fingerprints(before.iter().filter(removed)))
}

/// What is noted as this server's and as no other one's of `others`.
fn noted_alone(place: &Place, server: &Server, others: &[Server]) -> Result<Vec<Block>, Failure> {
    let own = own_file(place, server);
    let mut alone = pem::blocks_of(&own)?;
    for other in others.iter().filter(|other| own_file(place, other) != own) {
        let kept = pem::blocks_of(&own_file(place, other))?;
        alone.retain(|block| !holds(&kept, block));
    }
    Ok(alone)
}

/// Ends the trust in what is noted as this server's and as no other one's of `others`. Says which fingerprints went.
pub(crate) fn remove(
    place: &Place,
    file: &Path,
    server: &Server,
    others: &[Server],
) -> Result<Vec<String>, Failure> {
    let going = noted_alone(place, server, others)?;
    let trusted = pem::blocks_of(file)?;
    let rest: Vec<Block> = trusted.iter().filter(|block| !holds(&going, block)).cloned().collect();
    if rest.len() < trusted.len() {
        pem::write(file, &rest)?;
    }
    forget(place, server)?;
    Ok(fingerprints(trusted.iter().filter(|block| holds(&going, block))))
}

/// What is noted as this server's.
pub(crate) fn noted(place: &Place, server: &Server) -> Result<Vec<Block>, Failure> {
    pem::blocks_of(&own_file(place, server))
}

/// Takes the note of a server away; what it told of stays trusted.
pub(crate) fn forget(place: &Place, server: &Server) -> Result<(), Failure> {
    let own = own_file(place, server);
    if !own.exists() {
        return Ok(());
    }
    std::fs::remove_file(&own).map_err(|error| {
        let action = "remove it yourself; it is not read by the module";
        Failure::new(format!("to remove {}", own.display()), error, action)
    })
}

/// Whether anything is noted as this server's.
pub(crate) fn is_noted(place: &Place, server: &Server) -> bool {
    own_file(place, server).exists()
}

/// The note of a server's own certificates.
fn own_file(place: &Place, server: &Server) -> PathBuf {
    let port = if server.port == 1792 { String::new() } else { format!("_{}", server.port) };
    place.join(&format!("cert/server/{}{port}Cert.pem", server.name))
}

fn holds(blocks: &[Block], block: &Block) -> bool {
    blocks.iter().any(|other| other.certificate == block.certificate)
}

fn join(mut blocks: Vec<Block>, more: &[Block]) -> Vec<Block> {
    for block in more {
        if !holds(&blocks, block) {
            blocks.push(block.clone());
        }
    }
    blocks
}

fn fingerprints<'a>(blocks: impl Iterator<Item = &'a Block>) -> Vec<String> {
    blocks.map(|block| &block.certificate).map(Certificate::fingerprint_text).collect()
}
