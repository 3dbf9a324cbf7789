use super::*;

/// A node's units over time.
struct World {
    units: Units,
    start: Instant,
    names: Vec<String>,
    stable: Duration,
}

impl World {
    fn new() -> Self {
        let names = vec!["a.service".to_owned()];
        Self { units: Units::default(), start: Instant::now(), names, stable: Duration::from_secs(5) }
    }

    /// The look after so many seconds, at which systemd says `properties` of a.service and `needed` of b.service.
    fn look_at(&mut self, seconds: u64, properties: &str, needed: &str) -> Look {
        let shown = |name: &str, text: &str| -> Shown {
            let pairs = text.split_ascii_whitespace().filter_map(|pair| pair.split_once('='));
            let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            [(name.to_owned(), pairs)].into()
        };
        let now = self.start + Duration::from_secs(seconds);
        let (own, needed) = (shown("a.service", properties), shown("b.service", needed));
        self.units.judge(&self.names, &own, &needed, self.stable, now)
    }

    fn look(&mut self, seconds: u64, properties: &str) -> Look {
        self.look_at(seconds, properties, "")
    }

    fn fallen(&mut self, seconds: u64, properties: &str) -> Option<String> {
        self.look(seconds, properties).fallen.map(|fallen| fallen.to_string())
    }
}

const ACTIVE: &str = "LoadState=loaded ActiveState=active SubState=running Result=success ";
const RESTARTS: &str = "LoadState=loaded ActiveState=activating SubState=auto-restart Result=exit-code ExecMainCode=1 \
                        ExecMainStatus=3 ";
const FAILED: &str = "LoadState=loaded ActiveState=failed SubState=failed ";

#[test]
fn a_unit_must_stay_in_one_run() {
    let mut world = World::new();
    let stable = world.stable;
    let fresh =
        |left| Missing::Fresh { name: "a.service".to_owned(), stable, left: Duration::from_secs(left) };
    assert_eq!(world.look(0, &format!("{ACTIVE} InvocationID=1")).missing, [fresh(5)]);
    assert_eq!(world.look(4, &format!("{ACTIVE} InvocationID=1")).missing, [fresh(1)]);
    // It crashed and was started anew between two looks.
    assert_eq!(world.look(6, &format!("{ACTIVE} InvocationID=2 NRestarts=1")).missing, [fresh(5)]);
    assert_eq!(world.look(11, &format!("{ACTIVE} InvocationID=2 NRestarts=1")).missing, []);
    let failed = world.look(12, &format!("{FAILED} Result=exit-code")).missing;
    assert_eq!(failed[0].to_string(), "a.service is failed (exit-code)");
    assert_eq!(world.look(13, &format!("{ACTIVE} InvocationID=2")).missing, [fresh(5)]);
}

#[test]
fn failed_is_failed_once_it_stays_so() {
    for (properties, how) in [
        (
            "Result=start-limit-hit ExecMainCode=1 ExecMainStatus=3 NRestarts=5",
            "a.service exited with status 3",
        ),
        ("Result=exit-code ExecMainCode=1 ExecMainStatus=3", "a.service exited with status 3"),
        ("Result=core-dump ExecMainCode=3 ExecMainStatus=11", "a.service was killed by signal 11"),
        ("Result=timeout ExecMainCode=2 ExecMainStatus=15", "a.service failed (timeout)"),
        ("Result=resources", "a.service failed (resources)"),
    ] {
        let properties = format!("{FAILED} {properties}");
        let mut world = World::new();
        assert_eq!(world.fallen(0, &properties), None);
        assert_eq!(world.fallen(2, &properties), None);
        assert_eq!(world.fallen(3, &properties).as_deref(), Some(how));
    }
}

#[test]
fn failed_for_a_moment_is_not_failed() {
    let mut world = World::new();
    // RestartMode=normal passes through this state on the way to the next start.
    let passing = "LoadState=loaded ActiveState=failed SubState=failed-before-auto-restart Result=exit-code";
    let queued = format!("{FAILED} Result=exit-code Job=77");
    for (seconds, properties) in [(0, passing), (20, queued.as_str()), (40, passing), (60, queued.as_str())] {
        assert_eq!(world.fallen(seconds, properties), None, "{seconds}");
    }
    assert_eq!(world.fallen(61, &format!("{FAILED} Result=exit-code")), None);
    // OnFailure= has started it.
    assert_eq!(world.fallen(63, &format!("{ACTIVE} InvocationID=2")), None);
    assert_eq!(world.fallen(65, &format!("{FAILED} Result=exit-code")), None);
}

#[test]
fn short_runs_in_a_row_that_systemd_would_go_on_with_for_ever() {
    // RestartSec=2: fifteen ends in 29 seconds may be an address that is late.
    let mut world = World::new();
    for second in 0..30 {
        let restarts = second / 2;
        let state = match second % 2 {
            0 => format!("{RESTARTS} NRestarts={restarts}"),
            _ => format!("{ACTIVE} InvocationID={second} NRestarts={}", restarts + 1),
        };
        assert_eq!(world.fallen(second, &state), None, "{second}");
    }
    let fallen = world.fallen(30, &format!("{RESTARTS} NRestarts=15"));
    assert_eq!(fallen.as_deref(), Some("a.service exited with status 3"));

    // RestartSec=30.
    let mut world = World::new();
    assert_eq!(world.fallen(0, &format!("{RESTARTS} NRestarts=0")), None);
    assert_eq!(world.fallen(29, &format!("{RESTARTS} NRestarts=0")), None);
    assert_eq!(world.fallen(31, &format!("{RESTARTS} NRestarts=1")), None);
    assert!(world.fallen(62, &format!("{RESTARTS} NRestarts=2")).is_some());

    // RestartSec=100ms and runs of some seconds: no look sees an end, but all see the count.
    let mut world = World::new();
    for second in 0..36 {
        let restarts = second / 4;
        let state = format!("{ACTIVE} InvocationID={restarts} NRestarts={restarts}");
        assert_eq!(world.fallen(second, &state), None, "{second}");
    }
    let fallen = world.fallen(36, &format!("{ACTIVE} InvocationID=9 NRestarts=9"));
    assert_eq!(fallen.as_deref(), Some("a.service ends again and again"));
}

#[test]
fn a_unit_that_stays_up_in_the_end_is_not_given_up() {
    let mut world = World::new();
    for second in 0..28 {
        assert_eq!(world.fallen(second, &format!("{RESTARTS} NRestarts={}", second / 2)), None);
    }
    // The fifteenth run lasts; what was before it is forgotten.
    for second in 28..60 {
        assert_eq!(world.fallen(second, &format!("{ACTIVE} InvocationID=15 NRestarts=15")), None, "{second}");
    }
    assert_eq!(world.look(60, &format!("{ACTIVE} InvocationID=15 NRestarts=15")).missing, []);
    assert_eq!(world.fallen(61, &format!("{RESTARTS} NRestarts=15")), None);
    assert_eq!(world.fallen(63, &format!("{RESTARTS} NRestarts=16")), None);
    // Somebody has started it by hand.
    assert_eq!(world.fallen(100, &format!("{RESTARTS} NRestarts=0")), None);
    assert_eq!(world.fallen(102, &format!("{RESTARTS} NRestarts=1")), None);
}

#[test]
fn a_unit_that_is_not_there_or_needs_one_that_has_failed() {
    let gone = "LoadState=not-found ActiveState=inactive SubState=dead";
    let mut world = World::new();
    assert_eq!(world.fallen(0, gone), None);
    assert_eq!(world.look(9, gone).missing[0].to_string(), "a.service is not there");
    assert_eq!(world.fallen(10, gone).as_deref(), Some("a.service is not there"));

    let waiting = "LoadState=loaded ActiveState=inactive SubState=dead Requires=b.service";
    let failed = format!("{FAILED} Result=exit-code ExecMainCode=1 ExecMainStatus=1");
    let mut world = World::new();
    // As long as it is to be started, it waits.
    assert_eq!(world.look_at(0, &format!("{waiting} Job=5"), &failed).fallen, None);
    assert_eq!(world.look_at(20, &format!("{waiting} Job=5"), &failed).fallen, None);
    assert_eq!(world.look_at(21, waiting, &failed).fallen, None);
    let look = world.look_at(31, waiting, &failed);
    let fallen = look.fallen.unwrap();
    assert_eq!(fallen.to_string(), "a.service needs b.service, which exited with status 1");
    assert_eq!(fallen.culprit(), "b.service");
    assert_eq!(
        look.missing[0].to_string(),
        "a.service is inactive: it needs b.service, which is failed (exit-code)"
    );
}

#[test]
fn the_same_way_is_the_same_unit_and_end() {
    let fallen = |unit: &str, how: Option<&str>| Fallen {
        unit: unit.to_owned(),
        needs: None,
        how: how.map(str::to_owned),
    };
    let own = fallen("a.service", Some("exited with status 1"));
    assert!(own.is_like(&own) && own.is_like(&fallen("a.service", None)));
    assert!(!own.is_like(&fallen("b.service", Some("exited with status 1"))));
    assert!(!own.is_like(&fallen("a.service", Some("was killed by signal 11"))));
}
