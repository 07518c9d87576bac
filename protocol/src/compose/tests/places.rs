//! Where a mistake is shown, and what is guessed to be meant.

use super::*;

#[test]
fn what_is_awaited_in_vain_is_shown_where_it_is_named() {
    for (text, said) in [
        (
            "services:\n  web:\n    image: a\n  b:\n    image: a\n    depends_on: [webb]\n",
            "compose.yaml:6:18: services.b.depends_on: b depends on webb, and there is no such service\n  hint: did you mean 'web'?",
        ),
        (
            "services:\n  b:\n    image: a\n    depends_on:\n      other: {condition: service_started}\n",
            "compose.yaml:5:7: services.b.depends_on: b depends on other, and there is no such service",
        ),
        (
            "services:\n  a:\n    image: a\n    depends_on: [b]\n  b:\n    image: a\n    depends_on:\n      - a\n",
            "compose.yaml:4:18: services.a.depends_on: services wait for each other in a circle: a → b → a",
        ),
    ] {
        assert_eq!(refused(text), said);
    }
}

#[test]
fn words_that_are_nearly_right_are_guessed() {
    let ends = "x-rialto: {schedule: {cron: '0 3 * * *', ";
    for (body, said) in [
        ("deploy: {mode: replicatd}".to_string(), "did you mean replicated?"),
        ("deploy: {restart_policy: {condition: onfailure}}".to_string(), "did you mean on-failure?"),
        (format!("{ends}time_zone: Europe/berln}}}}"), "did you mean Europe/Berlin?"),
        (format!("{ends}overlap: forbidd}}}}"), "did you mean forbid?"),
        (format!("{ends}catch_up: lst}}}}"), "did you mean last?"),
    ] {
        let said_in_fact = refused(&format!("services:\n  web:\n    image: host\n    {body}\n"));
        assert!(said_in_fact.contains(said), "{body}: {said_in_fact}");
    }
}

#[test]
fn one_mistake_is_told_once() {
    for (body, said) in [
        ("imgae: host", "compose.yaml:3:5: services.web.imgae: unknown key\n  hint: did you mean 'image'?"),
        (
            "image: ${X:?say which}",
            "compose.yaml:3:12: services.web.image: the variable X is needed: say which\n  hint: set it in the shell, or in a \
             file .env beside this one",
        ),
    ] {
        assert_eq!(refused(&format!("services:\n  web:\n    {body}\n")), said);
    }
    for (cron, why) in [
        ("61 * * * *", "'61' is no minute (0 to 59)"),
        ("0 3 * * 8", "'8' is no day of the week (0 to 7, or SUN to SAT)"),
        ("60 0 3 * * *", "'60' is no second (0 to 59)"),
        ("0 3 * *", "it has five fields, or six with the seconds first"),
    ] {
        let text = format!("services:\n  web:\n    image: host\n    x-rialto:\n      schedule: \"{cron}\"\n");
        let problems = parse(&text, "compose.yaml").expect_err(cron);
        assert_eq!(problems.len(), 1, "{cron}: {}", told(&problems));
        assert_eq!(problems[0].message, format!("'{cron}' is no cron expression: {why}"));
        assert_eq!(problems[0].key, "services.web.x-rialto.schedule");
    }
}

#[test]
fn the_bound_of_attempts_is_kept() {
    for (body, retries) in [
        ("restart: on-failure:3", Some(3)),
        ("restart: on-failure", None),
        ("deploy: {restart_policy: {condition: on-failure, max_attempts: 4}}", Some(4)),
        ("deploy: {restart_policy: {condition: on-failure, max_attempts: 0}}", None),
        ("restart: on-failure:3\ndeploy: {restart_policy: {condition: on-failure}}", None),
        ("restart: on-failure:3\nx-rialto: {retries: 5}", Some(5)),
    ] {
        assert_eq!(service(body).batch.retries, retries, "{body}");
    }
}
