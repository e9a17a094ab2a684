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
    assert!(report.files().iter().any(|(name, _)| name == "paths.svg"));
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
fn faults_of_scenarios_and_traces_are_told() {
    for (text, word) in [
        ("nodes: 1", "nodes"),
        ("nodez: 4", "nodez"),
        ("schemes: [fast]", "fast"),
        ("every: 5", "duration"),
        ("underlay: { delay: 9ms..3ms }", "smaller"),
        ("underlay: { loss: 2 }", "loss"),
        ("failures: [{ what: router, every: 1s, lasts: 1s }]", "router"),
        ("tcp: [{ from: 2, to: 2 }]", "tcp"),
        ("tcp: [{ from: 0, to: 4 }]", "tcp"),
        ("tcp: [{ from: 0, to: 1, rate: fast }]", "rate"),
    ] {
        let error = Scenario::parse(text).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
    for (text, word) in [
        ("", "empty"),
        ("time,from", "line 1"),
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
