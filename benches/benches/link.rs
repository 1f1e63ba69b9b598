//! One request and its reply over the links of a lab (`. lab/env.sh`), at 1, 2, 8 and 32 callers.

use std::path::Path;

use benches::link::Link;
use benches::work::Work;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn links(criterion: &mut Criterion) {
    let Ok(folder) = std::env::var("ChrystokiConfigurationPath") else {
        println!("no lab is named: . lab/env.sh first");
        return;
    };
    let link = Link::open(Path::new(&folder)).expect("the lab's appliances answer");
    let mut group = criterion.benchmark_group("round-trip");
    for threads in [1usize, 2, 8, 32] {
        group.bench_function(BenchmarkId::from_parameter(threads), |bench| {
            bench.iter_custom(|operations| {
                let span = benches::window::time(&link, Work::RoundTrip, threads, operations);
                span.expect("the lab's appliances answer").expect("is offered")
            });
        });
    }
}

criterion_group!(benches, links);
criterion_main!(benches);
