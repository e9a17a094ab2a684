use super::*;
use crate::io::netlink::RouteKind;

/// Runs in a network namespace of its own; false where that is not permitted.
fn in_new_namespace(body: impl FnOnce() + Send + 'static) -> bool {
    let thread = std::thread::spawn(move || {
        let entered = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok();
        if entered {
            body();
        }
        entered
    });
    thread.join().unwrap()
}

fn ip(arguments: &str) -> String {
    let output = std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn small_plan(network: &str) -> KernelPlan {
    let route = Route {
        destination: network.parse().unwrap(),
        table: 4710,
        kind: RouteKind::Unreachable,
        gateway: None,
        interface: None,
        source: None,
        metric: u32::MAX,
        mtu: None,
        protocol: 171,
    };
    let rule = Rule {
        ipv6: network.contains(':'),
        preference: 4710,
        iif: Some("lan0".into()),
        from: None,
        to: Some(network.parse().unwrap()),
        mark: None,
        table: 4710,
        suppress_prefix_length: None,
    };
    let forwarding =
        Sysctl { name: "net/ipv4/ip_forward".into(), value: SysctlValue::Set("1".into()) };
    KernelPlan {
        sysctls: vec![forwarding],
        routes: vec![route],
        rules: vec![rule],
        nft_table: "inet rongate_test".into(),
        nft_body: "\tchain one {\n\t}\n".into(),
    }
}

#[test]
fn a_successor_takes_over_what_a_killed_gateway_left_and_undoes_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mit.kernel.json");
    let ran = in_new_namespace(move || {
        let forwarding = || sysctl::read("net/ipv4/ip_forward").unwrap();
        let before = forwarding();
        for network in ["10.2.0.0/16", "fd00:2::/48"] {
            // Killed: never undone.
            let mut first = KernelSetup::adopt(Netlink::open().unwrap(), path.clone()).unwrap();
            first.apply(&small_plan(network)).unwrap();
        }
        let mut second = KernelSetup::adopt(Netlink::open().unwrap(), path.clone()).unwrap();
        second.apply(&small_plan("10.3.0.0/16")).unwrap();
        let routes = ip("route show table 4710");
        assert!(routes.contains("unreachable 10.3.0.0/16") && !routes.contains("10.2."));
        let rules = ip("rule show");
        assert!(rules.contains("to 10.3.0.0/16 iif lan0") && !rules.contains("10.2."), "{rules}");
        assert!(!ip("-6 rule show").contains("4710"));
        assert_eq!(forwarding(), "1");
        second.undo().unwrap();
        assert!(!ip("rule show").contains("4710") && !path.exists());
        assert_eq!(forwarding(), before);
        assert_eq!(second.netlink.routes(4710).unwrap(), []);
    });
    if !ran {
        eprintln!("not permitted to make a network namespace: not tested");
    }
}

#[test]
fn what_others_clean_away_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mit.kernel.json");
    let ran = in_new_namespace(move || {
        let plan = small_plan("10.2.0.0/16");
        let mut setup = KernelSetup::adopt(Netlink::open().unwrap(), path).unwrap();
        setup.apply(&plan).unwrap();
        ip("rule del pref 4710");
        ip("route flush table 4710");
        nft::apply("flush ruleset\n").unwrap();
        setup.apply(&plan).unwrap();
        assert!(ip("rule show").contains("4710"));
        assert!(ip("route show table 4710").contains("unreachable 10.2.0.0/16"));
        assert!(nft::has_table(&plan.nft_table));
        setup.undo().unwrap();
        assert!(!nft::has_table(&plan.nft_table));
    });
    if !ran {
        eprintln!("not permitted to make a network namespace: not tested");
    }
}

#[test]
fn what_a_failed_attempt_left_is_taken_back_by_the_plan_before() {
    for body in ["\tchain one {\n\t}\n", ""] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mit.kernel.json");
        let ran = in_new_namespace(move || {
            let state = || [ip("rule show"), ip("-6 rule show"), ip("route show table all")];
            let before = KernelPlan { nft_body: body.into(), ..small_plan("10.2.0.0/16") };
            let mut setup = KernelSetup::adopt(Netlink::open().unwrap(), path).unwrap();
            setup.apply(&before).unwrap();
            let whole = state();
            let nonsense = "\tnonsense\n".into();
            let refused = KernelPlan { nft_body: nonsense, ..small_plan("10.3.0.0/16") };
            setup.apply(&refused).unwrap_err();
            assert_ne!(state(), whole);
            setup.apply(&before).unwrap();
            assert_eq!(state(), whole);
            assert_eq!(nft::has_table(&before.nft_table), !body.is_empty());
        });
        if !ran {
            eprintln!("not permitted to make a network namespace: not tested");
        }
    }
}

#[test]
fn only_what_is_no_longer_wanted_is_stale() {
    assert_eq!(missing_from(&[1, 2, 3], &[3, 4, 1]), [2]);
}

#[test]
fn a_record_of_another_boot_or_namespace_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mit.kernel.json");
    let mut record = Record { host: "elsewhere/1".into(), ..Record::default() };
    record.originals.insert("net/ipv4/ip_forward".into(), "0".into());
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    let setup = KernelSetup::adopt(Netlink::open().unwrap(), path.clone()).unwrap();
    assert_eq!(setup.record, Record { host: host_identity(), ..Record::default() });

    record.host = host_identity();
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    let setup = KernelSetup::adopt(Netlink::open().unwrap(), path.clone()).unwrap();
    assert_eq!(setup.record, record);

    fs::write(&path, "{").unwrap();
    assert!(KernelSetup::adopt(Netlink::open().unwrap(), path).is_ok());
}
