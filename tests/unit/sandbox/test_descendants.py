from remit.sandbox.forkserver import server


def test_a_line_of_children_of_any_length_is_found(monkeypatch):
    monkeypatch.setattr(server, "_children_of", lambda pid: [pid + 1] if pid < 5000 else [])
    assert server._descendants(1) == list(range(2, 5001))


def test_a_tree_is_found_parents_first(monkeypatch):
    tree = {1: [2, 3], 2: [4], 3: [5, 6], 6: [7]}
    monkeypatch.setattr(server, "_children_of", lambda pid: tree.get(pid, []))
    assert server._descendants(1) == [2, 3, 4, 5, 6, 7]
