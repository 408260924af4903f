use super::*;

fn parsed(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn lines_now(json: &str, now: &Now) -> Vec<String> {
    let all = writes(&parsed(json), now).unwrap();
    all.iter().map(|write| format!("{}={}", write.file, write.value)).collect()
}

fn lines(json: &str) -> Vec<String> {
    lines_now(json, &Now::default())
}

fn refused(json: &str) -> Error {
    writes(&parsed(json), &Now::default()).unwrap_err()
}

#[test]
fn memory_becomes_its_files_and_swap_is_without_the_memory() {
    for (json, wanted) in [
        (r#"{"limit":1000,"reservation":500}"#, &["memory.max=1000", "memory.low=500"][..]),
        (r#"{"limit":1000,"swap":1000}"#, &["memory.max=1000", "memory.swap.max=0"]),
        (r#"{"limit":1000,"swap":1500}"#, &["memory.max=1000", "memory.swap.max=500"]),
        (r#"{"limit":1000,"swap":-1}"#, &["memory.max=1000", "memory.swap.max=max"]),
        (r#"{"limit":-1}"#, &["memory.max=max", "memory.swap.max=max"]),
        (r#"{"limit":0,"swap":0,"kernel":-1,"disableOOMKiller":false,"useHierarchy":true}"#, &[]),
    ] {
        assert_eq!(lines(&format!("{{\"memory\":{json}}}")), wanted, "{json}");
    }
    for json in [r#"{"swap":10}"#, r#"{"limit":10,"swap":9}"#, r#"{"limit":-1,"swap":9}"#] {
        assert_eq!(refused(&format!("{{\"memory\":{json}}}")).code(), Code::Field, "{json}");
    }
    let now = Now { memory: Some(100), ..Now::default() };
    assert_eq!(lines_now(r#"{"memory":{"swap":150}}"#, &now), ["memory.swap.max=50"]);
}

#[test]
fn what_version_2_has_no_file_for_is_refused_by_name_and_all_at_once() {
    let error = refused(
        r#"{"memory":{"swappiness":0,"kernel":1,"kernelTCP":1,"disableOOMKiller":true},
            "cpu":{"realtimeRuntime":1,"realtimePeriod":1},"network":{"classID":1,"priorities":[{"name":"a"}]},
            "blockIO":{"leafWeight":10,"weightDevice":[{"major":8,"minor":0,"leafWeight":10}]}}"#,
    );
    assert_eq!(error.code(), Code::Unsupported);
    for word in [
        "memory.swappiness",
        "memory.kernel:",
        "memory.kernelTCP",
        "memory.disableOOMKiller",
        "cpu.realtimeRuntime",
        "cpu.realtimePeriod",
        "network.classID",
        "network.priorities",
        "blockIO.leafWeight",
        "blockIO.weightDevice[0].leafWeight",
    ] {
        assert!(error.why().contains(word), "{word}: {error}");
    }
}

#[test]
fn shares_become_weights() {
    for (shares, wanted) in
        [(1, "1"), (2, "1"), (100, "17"), (1024, "100"), (2048, "174"), (262_144, "10000"), (u64::MAX, "10000")]
    {
        assert_eq!(weight(shares), wanted, "{shares}");
    }
    assert_eq!(lines(r#"{"cpu":{"shares":0}}"#), Vec::<String>::new());
}

#[test]
fn time_is_given_by_quota_period_burst_and_idle() {
    for (json, wanted) in [
        (r#"{"quota":50000,"period":200000}"#, &["cpu.max=50000 200000"][..]),
        (r#"{"quota":50000}"#, &["cpu.max=50000"]),
        (r#"{"quota":-1,"period":100000}"#, &["cpu.max=max 100000"]),
        (r#"{"quota":0,"period":50000}"#, &["cpu.max=max 50000"]),
        (r#"{"quota":0}"#, &[]),
        (r#"{"burst":10,"quota":20,"idle":1}"#, &["cpu.max.burst=10", "cpu.max=20", "cpu.idle=1"]),
        (r#"{"cpus":"0-1","mems":""}"#, &["cpuset.cpus=0-1"]),
    ] {
        assert_eq!(lines(&format!("{{\"cpu\":{json}}}")), wanted, "{json}");
    }
    assert!(refused(r#"{"cpu":{"burst":30,"quota":20}}"#).why().contains("cpu.burst"));
    let now = Now { quota: Some("7000".to_owned()), ..Now::default() };
    assert_eq!(lines_now(r#"{"cpu":{"period":50000}}"#, &now), ["cpu.max=7000 50000"]);
}

#[test]
fn a_limit_of_no_processes_is_one_and_below_is_none() {
    for (limit, wanted) in [(5, "pids.max=5"), (0, "pids.max=1"), (-1, "pids.max=max")] {
        assert_eq!(lines(&format!("{{\"pids\":{{\"limit\":{limit}}}}}")), [wanted]);
    }
}

#[test]
fn block_io_is_scaled_and_throttled_by_device() {
    for (weight, wanted) in [(10, "1"), (100, "910"), (1000, "10000")] {
        let all = writes(&parsed(&format!("{{\"blockIO\":{{\"weight\":{weight}}}}}")), &Now::default()).unwrap();
        let wanted = Some(("io.weight".to_owned(), wanted.to_owned()));
        assert_eq!(
            (all[0].file.as_str(), all[0].value.clone(), &all[0].instead),
            ("io.bfq.weight", weight.to_string(), &wanted)
        );
    }
    let json = r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":500}],
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}],
        "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#;
    assert_eq!(lines(json), ["io.bfq.weight=8:0 500", "io.max=8:0 rbps=1024", "io.max=8:16 wiops=max"]);
    for weight in [1, 9, 1001] {
        assert_eq!(refused(&format!("{{\"blockIO\":{{\"weight\":{weight}}}}}")).code(), Code::Field);
    }
    assert_eq!(lines(r#"{"blockIO":{"weight":0}}"#), Vec::<String>::new());
}

#[test]
fn huge_pages_and_rdma_devices_have_lines_of_their_own() {
    let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4}],
        "rdma":{"mlx":{"hcaHandles":3,"hcaObjects":10000},"a":{"hcaObjects":1},"none":{}}}"#;
    assert_eq!(
        lines(json),
        [
            "hugetlb.2MB.max=4",
            "hugetlb.2MB.rsvd.max=4",
            "rdma.max=a hca_object=1",
            "rdma.max=mlx hca_handle=3 hca_object=10000"
        ]
    );
    for size in ["", "2M", "../x", "MB"] {
        assert!(
            writes(
                &parsed(&format!("{{\"hugepageLimits\":[{{\"pageSize\":{size:?},\"limit\":1}}]}}")),
                &Now::default()
            )
            .is_err()
        );
    }
}

#[test]
fn unified_comes_last_in_order_of_name_and_line_by_line() {
    let json =
        r#"{"pids":{"limit":5},"unified":{"pids.max":"7","memory.high":"1","io.max":"8:0 rbps=1\n8:16 rbps=2"}}"#;
    assert_eq!(lines(json), ["pids.max=5", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.high=1", "pids.max=7"]);
    for key in ["", "a/b.c", "../memory.max", "..", "memory", ".x", "cgroup.procs", "cgroup.kill", "cgroup.freeze"] {
        assert_eq!(refused(&format!("{{\"unified\":{{{key:?}:\"1\"}}}}")).code(), Code::Field, "{key}");
    }
}

#[test]
fn the_controller_is_the_first_part_of_the_name() {
    let all =
        writes(&parsed(r#"{"unified":{"hugetlb.2MB.max":"1","cgroup.max.depth":"3"}}"#), &Now::default()).unwrap();
    let controllers: Vec<_> = all.iter().map(Write::controller).collect();
    assert_eq!(controllers, [None, Some("hugetlb")]);
}
