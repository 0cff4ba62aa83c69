"""Hypothesis strategies for tasks of every operation: parts of `spec`, with fields named as in YAML."""

from hypothesis import strategies as st

words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
paths = st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=4).map(lambda p: "/" + "/".join(p))
argv = st.lists(words, max_size=4).map(lambda rest: ["true", *rest])
reference = st.just({"name": "db", "key": "url"})
operations = st.one_of(
    st.fixed_dictionaries({"command": st.fixed_dictionaries({"argv": argv})}),
    st.fixed_dictionaries({"command": st.fixed_dictionaries({"line": words.map(lambda word: f"true {word!a}")})}),
    st.fixed_dictionaries(
        {"script": st.fixed_dictionaries({"interpreter": st.just("sh"), "source": st.text(min_size=1), "args": argv})}
    ),
    st.fixed_dictionaries(
        {"process": st.fixed_dictionaries({"action": st.just("start"), "name": st.just("p"), "argv": argv})}
    ),
    st.fixed_dictionaries(
        {"file": st.fixed_dictionaries({"operation": st.just("copy"), "path": paths, "destination": paths})}
    ),
    st.fixed_dictionaries(
        {"file": st.fixed_dictionaries({"operation": st.just("write"), "path": paths, "content": words})}
    ),
    st.fixed_dictionaries(
        {
            "http": st.fixed_dictionaries(
                {
                    "url": paths.map(lambda path: f"https://api.test{path}"),
                    "method": st.sampled_from(["GET", "POST"]),
                    "headers": st.lists(st.fixed_dictionaries({"name": st.just("X-A"), "value": words}), max_size=2),
                    "body": words,
                }
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "redis": st.fixed_dictionaries(
                {
                    "connection": reference,
                    "commands": st.lists(st.tuples(st.sampled_from(["GET", "set"]), words), min_size=1),
                }
            )
        }
    ).map(lambda op: {"redis": {**op["redis"], "commands": [list(each) for each in op["redis"]["commands"]][:64]}}),
    st.fixed_dictionaries(
        {
            "postgres": st.fixed_dictionaries(
                {
                    "connection": reference,
                    "statements": st.lists(
                        st.fixed_dictionaries(
                            {"sql": st.just("select f($1)"), "parameters": st.lists(words, max_size=2)}
                        ),
                        min_size=1,
                        max_size=3,
                    ),
                }
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "container": st.fixed_dictionaries(
                {
                    "action": st.just("run"),
                    "image": st.just("shop:v1"),
                    "argv": argv,
                    "options": st.fixed_dictionaries({"network": st.just("net"), "mounts": st.just([])}),
                }
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "container": st.fixed_dictionaries(
                {"action": st.just("exec"), "name": st.just("web"), "argv": argv}, optional={"workingDir": paths}
            )
        }
    ),
)
surroundings = st.fixed_dictionaries(
    {},
    optional={
        "network": st.sampled_from(["none", "restricted", "host"]),
        "env": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["A", "B"]), "value": words}), max_size=1),
    },
)
