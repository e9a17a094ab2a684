use super::*;

const OUTAGES: &str = "
name: outages
duration: 300s
warm_up: 20s
nodes: 4
every: 500ms
underlay: { delay: 10ms..30ms }
failures:
  - { what: pair, every: 60s, lasts: 20s }
schemes: [direct, overlay, any, late-20]
";

#[test]
fn the_overlay_loses_less_than_the_direct_way_and_no_less_than_any() {
    let scenario = Scenario::parse(OUTAGES).unwrap();
    let report = run(&scenario, 4, None, &mut |_| {});
    let of = |name: &str| report.schemes.iter().find(|s| s.name == name).unwrap();
    let [direct, overlay, any] = ["direct", "overlay", "any"].map(|name| of(name).availability);
    assert!(direct < 0.95, "{direct}");
    assert!(overlay > direct + (any - direct) * 0.8, "{direct} {overlay} {any}");
    assert!(of("late-20").availability > direct);
    assert_eq!(of("overlay").sent, of("direct").sent);
    assert!(report.summary().contains("overlay"));
    let files = report.files();
    let file = |name: &str| &files.iter().find(|file| file.0 == name).unwrap().1;
    assert!(file("paths.svg").contains(">paths over 300 s: all 12 pairs</text>"));
    for meaning in ["direct", "none", "by n0", "by n3"] {
        assert!(file("paths.svg").contains(&format!(">{meaning}</text>")), "{meaning}");
    }
    let percent = format!(">overlay {:.3} %</text>", overlay * 100.0);
    assert!(file("availability.svg").contains(&percent), "{percent}");
    let pairs: Vec<_> = file("availability.csv").lines().skip(1).collect();
    assert_eq!(pairs.len(), 4 * 12);
    assert!(
        pairs[0].starts_with("direct,n0,n1,600,") && pairs[47].starts_with("overlay,n3,n2,600,")
    );
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_another() {
    let mut scenario = Scenario::parse(OUTAGES).unwrap();
    scenario.duration = Duration::from_secs(60);
    let json =
        |scenario: &Scenario| serde_json::to_string(&run(scenario, 4, None, &mut |_| {})).unwrap();
    let first = json(&scenario);
    assert_eq!(first, json(&scenario));
    scenario.seed += 1;
    assert_ne!(first, json(&scenario));
}

#[test]
fn connections_tell_how_they_fared() {
    let cut = "time_s,from,to,loss,delay_ms\n30,n0,n1,1,\n30,n1,n0,1,\n60,n0,n1,0,\n60,n1,n0,0,\n";
    let text = "{ nodes: 4, duration: 100s, every: 500ms, \
                tcp: [{ from: 0, to: 1 }, { from: 2, to: 3, rate: 200kbit }] }";
    let scenario = Scenario::parse(text).unwrap();
    let report = run(&scenario, 4, Some(&Trace::parse(cut).unwrap()), &mut |_| {});
    let told: Vec<_> = report.tcp.iter().map(|flow| (flow.scheme, flow.from, flow.to)).collect();
    assert_eq!(told, [("direct", 0, 1), ("overlay", 0, 1), ("direct", 2, 3), ("overlay", 2, 3)]);
    let [direct, overlay, calm @ ..] = &report.tcp[..] else { panic!() };
    assert!(direct.longest_s >= 30.0 && direct.timeouts >= 3, "{direct:?}");
    assert!(overlay.longest_s < 2.0, "{overlay:?}");
    assert!(overlay.bytes > direct.bytes, "{direct:?} {overlay:?}");
    for flow in calm {
        assert!(flow.stalls == 0 && (190.0..=200.0).contains(&flow.goodput_kbit_s), "{flow:?}");
    }
    assert_eq!(report.tcp_wrong, 0);
    assert!(report.summary().contains("n2 > n3"));
    let files = report.files();
    assert!(files.iter().any(|(name, text)| name == "tcp.csv" && text.lines().count() > 200));
}

#[test]
fn a_trace_comes_true() {
    let text = "time_s,from,to,loss,delay_ms\n# n0 and n1 are cut for a minute\n\
                0,n0,n1,0,12\n30,n0,n1,1,\n90,n0,n1,0,5.5\n";
    let trace = Trace::parse(text).unwrap();
    assert_eq!(trace.line(&trace.rows[2]), "90.000,n0,n1,0.00000,5.500");
    let mut scenario = Scenario::parse("{ nodes: 3, duration: 120s, every: 1s }").unwrap();
    scenario.schemes = vec!["direct".to_owned(), "overlay".to_owned()];
    let report = run(&scenario, 3, Some(&trace), &mut |_| {});
    let [direct, overlay] =
        [0, 1].map(|index| report.schemes[index].sent - report.schemes[index].arrived);
    assert_eq!(direct, 60);
    assert!(overlay < 6, "{overlay}");
}

#[test]
fn parts_of_a_trace_are_brought_to_one_zero() {
    let header = Trace::HEADER;
    let at = |text: &str| -> Vec<_> {
        let trace = Trace::parse(text).unwrap();
        trace.rows.iter().map(|row| (trace.names[row.from].clone(), row.at.as_secs_f64())).collect()
    };
    let of = |wanted: &[(&str, f64)]| -> Vec<_> {
        wanted.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect()
    };
    let (a, b) = (format!("{header}\n# began at 1000.5\n0,a,b,0,\n9,a,b,1,\n"), "0,b,a,0,\n");
    assert_eq!(
        at(&format!("{a}{header}\n# began at 1003\n{b}")),
        of(&[("a", 0.0), ("b", 2.5), ("a", 9.0)])
    );
    // Before the header it means the same; the earliest is zero, and who says nothing is there too.
    assert_eq!(
        at(&format!("{a}# began at 990.5\n{header}\n{b}")),
        of(&[("b", 0.0), ("a", 10.0), ("a", 19.0)])
    );
    assert_eq!(at(&format!("{a}{header}\n{b}")), of(&[("a", 0.0), ("b", 0.0), ("a", 9.0)]));
}

#[test]
fn faults_of_scenarios_and_traces_are_told() {
    for (text, word) in [
        ("nodes: 1", "nodes"),
        ("nodez: 4", "nodez"),
        ("schemes: [fast]", "fast"),
        ("every: 5", "every"),
        ("name: x\nnodes: -3", "nodes: a number from 2 to 1000, or a list of such at line 2"),
        ("nodes: 1e9", "nodes: a number from 2 to 1000, or a list of such at line 1"),
        ("nodes: 99999", "nodes: a number from 2 to 1000, or a list of such at line 1"),
        ("nodes: [4, 1]", "a number from 2 to 1000, or a list of such at line 1"),
        ("nodes: []", "nodes: a number from 2 to 1000, or a list of such at line 1"),
        ("name: x\nduration: -5s", "duration: "),
        ("name: x\nduration: -5s", "at line 2"),
        ("name: x\nduration: 1s\nevery: 2s", "every: from 1ms to the duration at line 3 column 1"),
        ("every: 0.001ms", "every: from 1ms"),
        ("{ duration: 100h, every: 1ms }", "every: the duration has more than 20000000"),
        ("talks_to: 0", "talks_to: at least 1"),
        ("schemes: []", "schemes: at least one"),
        ("schemes: [direct, overlay, direct]", "schemes: direct is there twice"),
        ("budget_bps: 0", "budget_bps: a rate is more than zero"),
        ("budget_bps: 33kbits", "budget_bps: "),
        ("underlay: { rate: 0bit }", "underlay.rate: a rate is more than zero"),
        ("underlay: { rate: 1mbit }\nschemes: [best]", "underlay.rate: with a rate"),
        (
            "underlay: { reroutes_after: 1s }",
            "underlay.reroutes_after: needs underlay.transit_stub",
        ),
        ("failures: [{ what: link, every: 1h, lasts: 1s }]", "failures: what: link needs"),
        (
            "failures: [{ what: link, every: 1h, lasts: 1s, delay: 1s }]\n\
             underlay: { transit_stub: small }",
            "failures: links between routers keep their delay",
        ),
        ("underlay: { delay: 9ms..3ms }", "smaller"),
        ("underlay: { delay: 9ms, transit_stub: small }", "underlay.delay: follows from"),
        ("underlay: { queue: 9ms }", "underlay.queue: needs underlay.rate"),
        ("underlay: { loss: 2 }", "loss"),
        ("failures: [{ what: router, every: 1s, lasts: 1s }]", "router"),
        ("tcp: [{ from: 2, to: 2 }]", "tcp"),
        ("tcp: [{ from: 0, to: 4 }]", "tcp"),
        ("tcp: [{ from: 0, to: 1, rate: fast }]", "rate"),
    ] {
        let error = Scenario::parse(text).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
    let both = ["33000", "33kbit"]
        .map(|rate| Scenario::parse(&format!("budget_bps: {rate}")).unwrap().budget_bps);
    assert_eq!(both, [33_000; 2]);
    for (text, word) in [
        ("", "empty"),
        ("time,from", "line 1"),
        ("1,a,b,0,\ntime_s,from,to,loss,delay_ms\n", "line 1"),
        ("time_s,from,to,loss,delay_ms\n# began at noon", "line 2"),
        ("time_s,from,to,loss,delay_ms\n1,a,b,2,", "line 2"),
        ("time_s,from,to,loss,delay_ms\n1,a,a,0,", "itself"),
        ("time_s,from,to,loss,delay_ms\n1,a,b,0", "4 fields"),
    ] {
        let error = Trace::parse(text).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
}

const TWO: &str = "
name: two
duration: 60s
warm_up: 20s
nodes: 4
overlays: [1, 2]
every: 20ms
talks_to: 1
underlay: { transit_stub: small, rate: 1mbit, queue: 50ms }
failures:
  - { what: link, every: 10m, lasts: 20s }
";

/// Two overlays that know nothing of each other share the links: those fill sooner, and each packet
/// stays in its own overlay.
#[test]
fn overlays_beside_each_other_share_links_and_nothing_else() {
    let scenario = Scenario::parse(TWO).unwrap();
    let reports: Vec<_> =
        scenario.by_overlays().iter().map(|one| run(one, 4, None, &mut |_| {})).collect();
    let [alone, both] = [&reports[0], &reports[1]];
    assert_eq!((alone.overlays, both.overlays), (1, 2));
    let sent = |report: &Report| report.schemes.iter().map(|s| s.sent).collect::<Vec<_>>();
    assert_eq!(sent(both), sent(alone).iter().map(|sent| 2 * sent).collect::<Vec<_>>());
    let overlay = |report: &Report| report.schemes.last().unwrap().availability;
    assert!(overlay(alone) > 0.95 && overlay(both) > 0.9, "{}", both.summary());
    assert!(both.summary().contains("2 overlays of 4 nodes"));
    assert_eq!(by_size(&reports), None, "sizes are compared, not numbers of overlays");
}

#[test]
fn overlays_that_cannot_be_are_refused() {
    for (wrong, right) in [("overlays: 0", "overlays: 1"), ("overlays: 300", "overlays: 250")] {
        let with = |what| Scenario::parse(&format!("nodes: 4\n{what}\n"));
        assert!(with(wrong).is_err() && with(right).is_ok(), "{wrong}");
    }
    assert!(Scenario::parse("overlays: 2\nschemes: [any]").is_err());
}

#[test]
fn nodes_that_start_one_after_the_other_find_each_other() {
    let text = "warm_up: 20s\nduration: 20s\nnodes: 5\nstarts_within: 10s\n";
    let scenario = Scenario::parse(text).unwrap();
    let report = run(&scenario, 5, None, &mut |_| {});
    assert_eq!(report.schemes[1].availability, 1.0, "{}", report.summary());
    assert!(Scenario::parse(&text.replace("10s", "21s")).is_err());
}

/// Links of a rate that nobody exhausts make no difference, though ways of all lengths lead to them.
#[test]
fn links_that_are_wide_enough_hold_nobody_up() {
    let run_with = |rate: &str| {
        let text = format!(
            "{{ duration: 15s, nodes: 8, every: 40ms, talks_to: 3, \
             underlay: {{ transit_stub: small{rate} }} }}"
        );
        run(&Scenario::parse(&text).unwrap(), 8, None, &mut |_| {})
    };
    let [free, wide] = ["", ", rate: 1gbit, queue: 5ms"].map(run_with);
    for (free, wide) in free.schemes.iter().zip(&wide.schemes) {
        assert_eq!((&free.name, free.availability), (&wide.name, 1.0));
        assert_eq!(wide.availability, 1.0, "{}", wide.name);
        let [free, wide] = [free, wide].map(|scheme| scheme.latency_ms[0].unwrap());
        assert!((wide / free - 1.0).abs() < 0.03, "{free} {wide}");
    }
    assert_eq!(wide.timeline.changes_per_pair_hour(), Some(0.0));
}

/// What hosts send directly waits in the queues that the overlay's packets wait in.
#[test]
fn the_direct_way_has_a_rate_too() {
    let text = "{ duration: 60s, nodes: 2, every: 10ms, underlay: { rate: 64kbit, queue: 50ms } }";
    let report = run(&Scenario::parse(text).unwrap(), 2, None, &mut |_| {});
    let direct = &report.schemes[0];
    // Ten milliseconds apart, and sixteen long with headers.
    assert_eq!(direct.name, "direct");
    assert!((0.6..0.65).contains(&direct.availability), "{direct:?}");
    assert!(report.schemes[1].availability < 0.5, "the overlay's are longer");
}

#[test]
fn nobody_waits_longer_than_three_seconds() {
    let schemes = "direct, overlay, best, any, twice, copies, random-1, late-1, two-hop";
    for (delay, arrives) in [("2999ms", true), ("3001ms", false), ("1000000h", false)] {
        let text = format!(
            "{{ duration: 20s, nodes: 4, schemes: [{schemes}], underlay: {{ delay: {delay} }} }}"
        );
        let report = run(&Scenario::parse(&text).unwrap(), 4, None, &mut |_| {});
        for scheme in report.schemes.iter().filter(|scheme| scheme.name != "overlay" || !arrives) {
            assert_eq!(scheme.availability, f64::from(u8::from(arrives)), "{delay} {scheme:?}");
        }
    }
}

#[test]
fn a_plot_of_paths_says_how_many_it_leaves_out() {
    let text = "{ duration: 5s, warm_up: 5s, nodes: 8, schemes: [overlay] }";
    let report = run(&Scenario::parse(text).unwrap(), 8, None, &mut |_| {});
    let files = report.files();
    let (_, paths) = files.iter().find(|file| file.0 == "paths.svg").unwrap();
    assert!(paths.contains(">paths over 5 s: the first 40 of 56 pairs</text>"));
}

#[test]
fn progress_is_told_all_the_time() {
    let text = "{ duration: 20s, every: 20s, warm_up: 60s, nodes: 2, starts_within: 40s }";
    let mut told = Vec::new();
    run(&Scenario::parse(text).unwrap(), 2, None, &mut |done| told.push(done));
    assert!(told.is_sorted() && *told.last().unwrap() == 1.0);
    let longest = told.windows(2).map(|two| two[1] - two[0]).fold(told[0], f64::max);
    assert!(longest < 0.002, "{longest}");
}
