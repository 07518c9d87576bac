//! The specification's own schema as an oracle: it knows no key that the table does not, and what it refuses is refused.

use std::fs;

use rialto_protocol::compose::{self, describe};
use serde_json::{Map, Value, json};

fn schema() -> Option<Value> {
    let text = fs::read_to_string(super::corpus()?.join("compose-spec.schema.json")).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

fn resolved<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    while let Some(name) = schema["$ref"].as_str() {
        schema = &root["definitions"][name.rsplit('/').next().unwrap()];
    }
    schema
}

/// Every path of keys that the schema has a word for; names that a file chooses are no part of it.
fn paths(root: &Value, schema: &Value, here: &[String], found: &mut Vec<Vec<String>>) {
    let schema = resolved(root, schema);
    if here.len() > 10 {
        return;
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let mut path = here.to_vec();
        path.push(key.clone());
        found.push(path.clone());
        paths(root, inner, &path, found);
    }
    for (pattern, inner) in schema["patternProperties"].as_object().into_iter().flatten() {
        if pattern != "^x-" {
            paths(root, inner, here, found);
        }
    }
    if schema["items"].is_object() {
        paths(root, &schema["items"], here, found);
    }
    for one in schema["oneOf"].as_array().into_iter().flatten() {
        paths(root, one, here, found);
    }
}

#[test]
fn the_table_has_every_key_of_the_specification() {
    let Some(schema) = schema() else { return super::skipped() };
    let mut found = Vec::new();
    paths(&schema, &schema, &[], &mut found);
    let missing: Vec<String> = found
        .iter()
        .filter(|path| !describe::knows(&path.iter().map(String::as_str).collect::<Vec<_>>()))
        .map(|path| path.join("."))
        .collect();
    assert!(found.len() > 200, "{} keys", found.len());
    assert!(missing.is_empty(), "the table lacks {}", missing.join(", "));
}

/// Draft-07 as far as the specification's schema uses it. Where it asks for text any single value will do.
fn is_valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolved(root, schema);
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let is_of = |kind: &str| match kind {
        "string" => value.is_string() || value.is_number() || value.is_boolean(),
        "number" | "integer" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("a type {other}"),
    };
    if !types.is_empty() && !types.iter().any(|kind| is_of(kind)) {
        return false;
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return false;
    }
    if let Some(some) = schema["oneOf"].as_array()
        && !some.iter().any(|one| is_valid(root, one, value))
    {
        return false;
    }
    if let Some(items) = value.as_array() {
        let twice = |at: usize| items[..at].contains(&items[at]);
        if schema["uniqueItems"] == json!(true) && (0..items.len()).any(twice) {
            return false;
        }
        if schema["items"].is_object() && !items.iter().all(|item| is_valid(root, &schema["items"], item)) {
            return false;
        }
    }
    let Some(map) = value.as_object() else { return true };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if required.into_iter().any(|key| !map.contains_key(key)) {
        return false;
    }
    map.iter().all(|(key, value)| {
        if let Some(inner) = schema["properties"].get(key) {
            return is_valid(root, inner, value);
        }
        let name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        for (pattern, inner) in schema["patternProperties"].as_object().into_iter().flatten() {
            let matches = match pattern.as_str() {
                "^x-" => key.starts_with("x-"),
                "^[a-zA-Z0-9._-]+$" => !key.is_empty() && key.chars().all(name),
                "^[a-z]+$" => !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase()),
                ".+" | "^.+$" => !key.is_empty(),
                other => panic!("a pattern {other}"),
            };
            if matches {
                return is_valid(root, inner, value);
            }
        }
        schema["additionalProperties"] != json!(false)
    })
}

/// A file that has most of what is honoured or warned about.
fn whole() -> Value {
    json!({
        "name": "shop",
        "version": "3",
        "networks": {"default": null, "near": {"external": true, "name": "town"}, "own": {"driver": "bridge", "ipam": {"config": [{"subnet": "10.0.0.0/8"}]}}},
        "volumes": {"data": null, "own": {"name": "kept", "driver": "local", "labels": {"a": "b"}}, "far": {"external": {"name": "x"}}},
        "configs": {"conf": {"content": "x", "labels": ["a=b"]}, "sealed": {"external": true, "name": "y"}},
        "secrets": {"word": {"file": "./word"}, "own": {"environment": "WORD"}, "far": {"external": true}},
        "services": {"web": {
            "image": "web:1", "command": ["a", "b"], "entrypoint": "x y", "environment": {"A": "1", "B": 2}, "restart": "always",
            "build": {"context": ".", "args": ["A=1"], "tags": ["t"]},
            "ports": ["80:80", {"target": 81, "published": "81", "protocol": "udp", "name": "p", "mode": "host"}],
            "expose": ["80", 81], "networks": {"default": null, "near": {"priority": 5}}, "user": "1000", "group_add": ["a", 5],
            "working_dir": "/x", "read_only": true, "tmpfs": ["/run"],
            "volumes": ["data:/data:ro", {"type": "volume", "source": "data", "target": "/d", "volume": {"nocopy": true, "labels": ["a=b"]}},
                {"type": "bind", "source": "/srv", "target": "/srv", "read_only": true, "bind": {"create_host_path": false, "selinux": "z"}},
                {"type": "tmpfs", "target": "/fast", "tmpfs": {"size": "1m", "mode": "0700"}}],
            "configs": ["conf", {"source": "conf", "target": "/c", "uid": "5", "gid": "6", "mode": "0440"}],
            "secrets": ["word", {"source": "far", "target": "other", "mode": "0400"}], "cap_add": ["NET_RAW"], "cap_drop": ["KILL"],
            "security_opt": ["no-new-privileges:true"], "ulimits": {"nofile": {"soft": 1, "hard": 2}, "nproc": 5},
            "sysctls": {"kernel.msgmax": 1}, "shm_size": "1m", "pids_limit": 5, "init": true, "tty": false, "stdin_open": true,
            "devices": ["/dev/fuse", {"source": "/dev/a", "permissions": "r"}], "stop_signal": "SIGINT", "stop_grace_period": "5s",
            "healthcheck": {"test": ["CMD", "x"], "interval": "5s", "retries": 3}, "profiles": [], "labels": {"a": "b"},
            "logging": {"driver": "x", "options": {"a": "b"}}, "dns": ["1.1.1.1"], "hostname": "h", "links": ["web"],
            "depends_on": {"db": {"condition": "service_healthy", "required": false}},
            "pre_stop": [{"command": ["x"]}], "develop": {"watch": [{"path": ".", "action": "sync"}]},
            "blkio_config": {"weight": 5, "device_read_bps": [{"path": "/dev/a", "rate": "1m"}]}, "annotations": ["a=b"],
            "deploy": {
                "replicas": 2, "mode": "replicated", "update_config": {"parallelism": 2, "order": "start-first", "max_failure_ratio": 0.1}, "endpoint_mode": "vip", "labels": ["a=b"],
                "restart_policy": {"condition": "any", "delay": "5s"},
                "resources": {"limits": {"cpus": "0.5", "memory": "64m", "pids": 5},
                    "reservations": {"cpus": 0.25, "memory": "32m", "generic_resources": [{"discrete_resource_spec": {"kind": "x", "value": 1}}],
                        "devices": [{"capabilities": ["gpu"], "count": 1}]}},
                "placement": {"constraints": ["node.labels.a == b"], "preferences": [{"spread": "node.labels.z"}], "max_replicas_per_node": 1}
            },
            "x-anything": 1
        }},
        "x-top": {"a": []}
    })
}

/// A place in a value.
fn places(value: &Value, here: &[String], found: &mut Vec<Vec<String>>) {
    found.push(here.to_vec());
    let into = |key: String| here.iter().cloned().chain([key]).collect::<Vec<_>>();
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| places(inner, &into(key.clone()), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, inner)| places(inner, &into(at.to_string()), found))
        }
        _ => {}
    }
}

fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Value {
    path.iter().fold(value, |value, key| match value {
        Value::Array(items) => &mut items[key.parse::<usize>().unwrap()],
        value => &mut value[key.as_str()],
    })
}

/// What is done to one place of the file.
fn changes(value: &Value) -> Vec<Value> {
    let mut changed = vec![
        json!(null),
        json!([]),
        json!({}),
        json!("text"),
        json!(7),
        json!([[]]),
        json!({"unknown": 1}),
        json!([{"unknown": []}]),
    ];
    match value {
        Value::Object(map) => {
            let mut more = map.clone();
            more.insert("unknown".into(), json!("x"));
            changed.push(Value::Object(more));
            for key in map.keys() {
                let less: Map<String, Value> =
                    map.iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.clone(), v.clone())).collect();
                changed.push(Value::Object(less));
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let twice: Vec<Value> = items.iter().cloned().chain([items[0].clone()]).collect();
            changed.push(json!(twice));
            changed.push(json!([{}]));
        }
        _ => {}
    }
    changed
}

#[test]
fn what_the_specification_refuses_is_refused() {
    let Some(schema) = schema() else { return super::skipped() };
    let whole = whole();
    assert!(is_valid(&schema, &schema, &whole), "the file that is changed is sound itself");
    let read = compose::parse(&whole.to_string(), "f");
    assert!(
        read.is_ok(),
        "{:?}",
        read.err().map(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())
    );
    let mut found = Vec::new();
    places(&whole, &[], &mut found);
    let (mut refused, mut missed) = (0, Vec::new());
    for place in &found {
        let before = at(&mut whole.clone(), place).clone();
        for change in changes(&before) {
            let mut file = whole.clone();
            *at(&mut file, place) = change;
            if is_valid(&schema, &schema, &file) {
                continue;
            }
            refused += 1;
            let text = file.to_string();
            if compose::parse(&text, "f").is_ok() {
                missed.push(format!("{}: {}", place.join("."), at(&mut file, place)));
            }
        }
    }
    assert!(refused > 500, "{refused} files were refused by the schema");
    assert!(missed.is_empty(), "{} of {refused} are taken:\n{}", missed.len(), missed.join("\n"));
}
