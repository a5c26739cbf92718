//! JSON Schemas of backends: what is read, by what reads it, and what is shown.

use serde_json::{Value, json};

use super::{URL_SHAPE, new_backend, said};
use crate::api::route::Schema;
use crate::declare::schema_of;

pub(in crate::api) const CAUSE: &str =
    "Why it is given nothing, or not its share, in the words of the line on stderr.";

pub(super) const STATE: &str = "What the operator says.";

pub(in crate::api) fn state_schema() -> Value {
    json!({ "enum": ["up", "drain", "down"], "description": STATE })
}

pub(in crate::api) fn health_schema() -> Value {
    json!({
        "enum": ["up", "down", "ejected", "unknown"],
        "description": "What its checks and answers say, whatever the operator says.",
    })
}

fn measured_schema() -> Value {
    json!({
        "type": ["object", "null"],
        "description": "With `max_in_flight` `auto`.",
        "required": ["held", "median_seconds", "moved"],
        "properties": {
            "held": { "type": "integer", "minimum": 0, "description": "Requests that wait for their answers' heads." },
            "median_seconds": {
                "type": ["number", "null"], "minimum": 0,
                "description": "What answers take to their heads, in the middle; null: none came lately.",
            },
            "moved": {
                "enum": ["quick", "trial", "idle", "busy", "none", "bounds", null],
                "description": "What moved the bound last. `quick`: it was full and answers came as quickly as ever, so it grew. \
                                `trial`: fewer are tried. `idle`, `busy`, `none`: a trial found that places had waited (it is \
                                lower now), that all were at work (it may grow), or neither (it is as before). `bounds`: \
                                `balancing.auto` was changed. null: it is where it began.",
            },
        },
    })
}

fn endpoint_schema() -> Value {
    json!({
        "type": "object",
        "required": ["address", "tier", "weight", "health", "cause", "in_flight"],
        "properties": {
            "address": { "type": "string" },
            "tier": {
                "type": "integer", "minimum": 0, "maximum": 65535,
                "description": "Used only when no address of a lower tier can be: the priorities of SRV records, counted from 0.",
            },
            "weight": {
                "type": "number", "minimum": 0,
                "description": "Share relative to those of all others; of SRV records, the target's part of the backend's.",
            },
            "health": health_schema(),
            "cause": { "type": ["string", "null"], "description": "Why it is down or ejected." },
            "in_flight": { "type": "integer", "minimum": 0 },
        },
    })
}

pub(super) fn schemas() -> Vec<Schema> {
    let new = schema_of(new_backend);
    let read = &new["properties"];
    let mut patch = schema_of(said);
    patch["minProperties"] = json!(1);
    let backend = json!({
        "type": "object",
        "required": ["pool", "name", "url", "weight", "state", "max_in_flight", "limit", "measured", "backup", "source",
                     "up", "health", "cause", "in_flight", "endpoints"],
        "properties": {
            "pool": { "type": "string" },
            "name": { "type": "string" },
            "url": { "type": "string", "description": URL_SHAPE },
            "weight": read["weight"],
            "state": read["state"],
            "max_in_flight": read["max_in_flight"],
            "limit": {
                "type": ["integer", "null"], "minimum": 1,
                "description": "The bound in force, whether a number or measured; null: there is none.",
            },
            "measured": measured_schema(),
            "backup": read["backup"],
            "source": { "enum": ["file", "store"], "description": "Where it comes from." },
            "up": { "type": "boolean", "description": "Whether it is given requests." },
            "health": health_schema(),
            "cause": { "type": ["string", "null"], "description": CAUSE },
            "in_flight": { "type": "integer", "minimum": 0 },
            "endpoints": { "type": "array", "items": endpoint_schema() },
        },
    });
    let list = json!({
        "type": "object",
        "required": ["backends", "next_cursor"],
        "properties": {
            "backends": { "type": "array", "items": { "$ref": "#/components/schemas/Backend" } },
            "next_cursor": { "type": "null" },
        },
    });
    let example = example();
    let added = json!({ "name": "b", "url": "http://10.0.0.12:8080", "weight": 1 });
    vec![
        Schema::new("Backend", backend, example.clone()),
        Schema::new("NewBackend", new, added),
        Schema::new("BackendPatch", patch, json!({ "state": "drain" })),
        Schema::new("Backends", list, json!({ "backends": [example], "next_cursor": null })),
    ]
}

/// A backend, as examples show it.
pub(in crate::api::v1) fn example() -> Value {
    let cause = "GET /: connection refused; does it run, and is backends[].url right?";
    json!({
        "pool": "default", "name": "b", "url": "http://10.0.0.12:8080", "weight": 1, "state": "up",
        "max_in_flight": "auto", "limit": 24, "measured": { "held": 3, "median_seconds": 0.021, "moved": "quick" }, "backup": false,
        "source": "store", "up": false, "health": "down", "cause": cause, "in_flight": 0,
        "endpoints": [{
            "address": "10.0.0.12:8080", "tier": 0, "weight": 1.0, "health": "down", "cause": cause, "in_flight": 0,
        }],
    })
}
