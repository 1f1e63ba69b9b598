//! One caller on a warm session: signatures, encryption and digests of every module that the environment names.
//! Compare the modules of one run with each other; the times of two runs say nothing (docs/architecture.md).

use criterion::{Criterion, criterion_group, criterion_main};
use cryptoki_sys::{CKM_AES_CBC, CKM_AES_KEY_GEN, CKM_ECDSA, CKM_SHA256, CKM_SHA256_RSA_PKCS};
use tests::p11::{Mech, p256_pair, rsa_pair, secret_key};

fn operations(criterion: &mut Criterion) {
    let modules = benches::modules().expect("the modules that the environment names can be used");
    if modules.is_empty() {
        println!("no module is named: see the head of benches/src/lib.rs");
    }
    for module in &modules {
        let (p11, session, name) = (&module.p11, module.session, module.name);
        let (_, p256) = p256_pair(p11, session, false, "bench", 1).expect("P-256 pairs can be made");
        let (_, rsa) = rsa_pair(p11, session, false, "bench", 2).expect("RSA pairs can be made");
        let aes =
            secret_key(p11, session, CKM_AES_KEY_GEN, 32, false, "bench").expect("AES keys can be made");
        let data = vec![0x5a; 1024];
        criterion.bench_function(&format!("p256-sign/{name}"), |bench| {
            bench.iter(|| p11.sign_once(session, Mech::plain(CKM_ECDSA), p256, &data[..32]).expect("signs"));
        });
        criterion.bench_function(&format!("rsa2048-sha256-sign/{name}"), |bench| {
            bench.iter(|| {
                p11.sign_once(session, Mech::plain(CKM_SHA256_RSA_PKCS), rsa, &data).expect("signs")
            });
        });
        criterion.bench_function(&format!("aes-cbc-1k/{name}"), |bench| {
            bench.iter(|| {
                p11.encrypt_init(session, Mech::iv(CKM_AES_CBC, &[1; 16]), aes).expect("begins");
                p11.encrypt(session, &data).expect("encrypts")
            });
        });
        criterion.bench_function(&format!("sha256-1k/{name}"), |bench| {
            bench.iter(|| p11.digest(session, Mech::plain(CKM_SHA256), &data).expect("digests"));
        });
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
