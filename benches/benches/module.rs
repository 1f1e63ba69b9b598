//! Every operation through the modules that the environment names, at 1, 2, 8 and 32 threads, beside the cryptographic library
//! alone. `cargo xtask bench` measures the same in turn and is the one to compare with; this is for a closer look at one row:
//!
//! ```text
//! . lab/env.sh                                              a lab: P11_MODULE, P11_TOKEN_LABEL, P11_PIN
//! SOFTHSM2_CONF=... SOFTHSM2_LABEL=... SOFTHSM2_PIN=...     a SoftHSM2 token to stand beside it, if there is one
//! cargo bench -p benches --bench module -- p256-sign
//! ```

use std::path::Path;

use benches::library::Library;
use benches::module::{SOFTHSM2, Token};
use benches::window;
use benches::work::{Contestant, NAMES};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// The contestants that the environment names, and the library.
fn contestants() -> Vec<(&'static str, Box<dyn Contestant>)> {
    let value = |name: &str| std::env::var(name).ok();
    let softhsm = value("SOFTHSM2_CONF").map(|_| SOFTHSM2.to_owned());
    let named = [
        ("hatoki", value("P11_MODULE"), value("P11_TOKEN_LABEL"), value("P11_PIN")),
        ("softhsm2", softhsm, value("SOFTHSM2_LABEL"), value("SOFTHSM2_PIN")),
    ];
    let mut all: Vec<(&'static str, Box<dyn Contestant>)> =
        vec![("library", Box::new(Library::new().expect("the library makes keys")))];
    for (name, path, label, pin) in named {
        if let (Some(path), Some(label), Some(pin)) = (path, label, pin) {
            let token = Token::open(Path::new(&path), &label, pin, name == "hatoki");
            all.push((name, Box::new(token.expect("a module that the environment names can be used"))));
        }
    }
    all
}

fn operations(criterion: &mut Criterion) {
    let contestants = contestants();
    for (work_name, work) in NAMES {
        for threads in [1usize, 2, 8, 32] {
            let mut group = criterion.benchmark_group(format!("{work_name}/{threads}"));
            for (name, contestant) in &contestants {
                if matches!(contestant.worker(*work, 0), Ok(None)) {
                    continue;
                }
                group.bench_function(BenchmarkId::from_parameter(name), |bench| {
                    bench.iter_custom(|operations| window::time(&**contestant, *work, threads, operations));
                });
            }
        }
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
