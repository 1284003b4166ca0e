use lockstep_replication::chaos::{Mutant, PROBES};
use lockstep_sim::{mutants, Plan, run::{run, Options}};
fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    let a: Vec<String> = std::env::args().collect();
    let n: u64 = a[2].parse().unwrap();
    if a[1] == "base" {
        let next = std::sync::atomic::AtomicU64::new(a.get(3).map_or(0, |x| x.parse().unwrap()));
        let end = next.load(std::sync::atomic::Ordering::Relaxed) + n;
        let hits = std::sync::Mutex::new(vec![0u64; PROBES.len()]);
        let steps = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|s| { for _ in 0..2 { s.spawn(|| loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= end { return }
            let p = Plan::drawn(seed);
            let r = run(&p, &Options::default());
            steps.fetch_add(r.steps, std::sync::atomic::Ordering::Relaxed);
            if let Some(f) = &r.failure { println!("seed {seed} moods {} {}: {}", p.moods, f.check, f.reason.chars().take(220).collect::<String>()); }
            for (x, y) in hits.lock().unwrap().iter_mut().zip(r.probes) { *x += y }
        }); } });
        println!("steps {}", steps.into_inner());
        for (name, h) in PROBES.iter().zip(hits.into_inner().unwrap()) { if h < 5 { println!("{h} {name}") } }
        return;
    }
    let list: Vec<Mutant> = if a[1] == "all" { Mutant::ALL.to_vec() } else { a[1].split(',').map(|n| Mutant::named(n).unwrap()).collect() };
    let scen = |name: &str| lockstep_sim::scenario::Scenario::read(std::path::Path::new(&format!("scenarios/{name}.toml"))).map_err(|e| println!("{name}: {e}")).ok();
    let t = std::time::Instant::now();
    mutants::hunt_all(&list, n, 2, &scen, &|h| match &h.caught {
        Some(c) => println!("{:28} {:4} {:5} {:24} {}: {}", h.mutant, h.law, h.seeds, c.run, c.check, c.reason.chars().take(140).collect::<String>()),
        None => println!("{:28} {:4} {:5} SURVIVES", h.mutant, h.law, h.seeds),
    });
    println!("{:?}", t.elapsed());
}
