"""No randomness twice: every key of every family is split once, or folded with different numbers, or drawn from once.

JAX's own checker finds a key that is drawn from or split twice. It lets `fold_in` pass, although the parts of
`split(key)` are the keys `fold_in(key, 0)`, `fold_in(key, 1)`, ...: `reuses` finds that as well, in the traced program.
"""

import families
import jax
import jax.numpy as jnp
import pytest

from genmap_jax.algorithm import like_batch

KEY = jax.random.key(0)
PASSED_ON = {"broadcast_in_dim", "reshape", "squeeze", "copy", "copy_p", "convert_element_type", "sharding_constraint"}
"""Primitives whose result is the same key or the same number."""


def is_key(variable) -> bool:
    return jnp.issubdtype(getattr(variable.aval, "dtype", None), jax.dtypes.prng_key)


def reuses(jaxpr) -> list[str]:
    """What is done with a key after it was used up, in words; empty if all is well."""
    uses: dict[int, list[tuple[str, object]]] = {}
    count = iter(range(10**9))

    def fresh():
        uses[number := next(count)] = []
        return number

    def walk(jaxpr, known):
        """known: variable -> number of its key, or the literal number it holds."""

        def of(atom):
            if hasattr(atom, "val"):
                return atom.val if jnp.ndim(atom.val) == 0 else None
            return known.get(atom)

        for variable in (*jaxpr.constvars, *jaxpr.invars):
            if is_key(variable):
                known.setdefault(variable, fresh())
        for eqn in jaxpr.eqns:
            name, inputs = eqn.primitive.name, [of(atom) for atom in eqn.invars]
            before, ways = {key: len(each) for key, each in uses.items()}, []
            for inner, first in parts(eqn):  # of several parts, the branches of a condition, one is run
                inner = getattr(inner, "jaxpr", inner)
                given = zip(inner.invars, eqn.invars[first : first + len(inner.invars)], strict=True)
                walk(inner, {variable: of(atom) for variable, atom in given if of(atom) is not None})
                ways.append({key: uses[key][size:] for key, size in before.items()})
                for key, size in before.items():
                    del uses[key][size:]
            for key in before if ways else ():
                uses[key] += max((way[key] for way in ways), key=len)
            for key in {of(atom) for atom in constants(eqn) if is_key(atom)}:  # used in every round of a loop
                uses[key] += [use for use in uses[key][before[key] :] if use[0] != "fold_in"]
            if name == "random_split":
                uses[inputs[0]].append(("split", None))
            elif name == "random_fold_in":
                uses[inputs[0]].append(("fold_in", None if inputs[1] is None else int(inputs[1])))
            elif name == "random_bits":
                uses[inputs[0]].append(("draw", None))
            for variable in eqn.outvars:
                if name in PASSED_ON and inputs[0] is not None:
                    known[variable] = inputs[0]
                elif is_key(variable):
                    known[variable] = fresh()

    walk(jaxpr.jaxpr, {})
    found = []
    for each in uses.values():
        once = [use for use in each if use[0] != "fold_in"]
        numbers = [number for how, number in each if how == "fold_in" and number is not None]
        if len(once) > 1 or (once and len(each) > 1) or len(numbers) > len(set(numbers)):
            found.append(", ".join(how if number is None else f"{how} {number}" for how, number in each))
    return found


def parts(eqn):
    """The programs inside of an equation, each with the place of its first argument.

    None of a backward pass that computes a forward pass again (`jax.checkpoint`): it draws the same numbers on purpose.
    """
    p = eqn.params
    if p.get("differentiated"):
        return []
    if "branches" in p:
        return [(branch, 1) for branch in p["branches"]]
    if "cond_jaxpr" in p:
        return [(p["body_jaxpr"], p["cond_nconsts"])]
    return [(p[name], 0) for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in p]


def constants(eqn):
    """The arguments of a loop that are the same in every round."""
    p = eqn.params
    if "cond_jaxpr" in p:
        return eqn.invars[p["cond_nconsts"] : p["cond_nconsts"] + p["body_nconsts"]]
    return eqn.invars[: p["num_consts"]] if eqn.primitive.name == "scan" else ()


def functions(case):
    """What a family draws in: name -> function of (state, key), and the shape of a state."""
    algorithm, batch, cond = case.build(), case.batch(), case.cond(3)
    state = jax.eval_shape(algorithm.init, KEY, like_batch(algorithm.reads, families.BATCH))
    found = {"init": lambda s, k: algorithm.init(k, batch), "step": lambda s, k: algorithm.step(s, batch, k)}
    found["sample"] = lambda s, k: algorithm.sample(s, k, 3, cond)
    if algorithm.log_prob is not None:
        found["log_prob"] = lambda s, k: algorithm.log_prob(s, batch, k)
    if algorithm.prepare is not None:
        found["prepare"] = algorithm.prepare
    if algorithm.trajectory is not None:
        found["trajectory"] = lambda s, k: algorithm.trajectory(s, k, 3, cond, 2)
    if algorithm.walk is not None:
        found["walk"] = lambda s, k: algorithm.walk(s, k, jnp.linspace(0.0, 1.0, 3), cond)
    return state, found


def test_reuse_is_found():
    """Of keys one by one and under vmap, in loops and branches; and what is no reuse passes."""

    def of(f):
        return reuses(jax.make_jaxpr(f)(KEY))

    draw = jax.random.normal
    assert of(lambda k: draw(k) + draw(k)) == ["draw, draw"]
    assert of(lambda k: draw(jax.random.split(k)[0]) + draw(k)) == ["split, draw"]
    assert of(lambda k: draw(jax.random.split(k)[0]) + draw(jax.random.fold_in(k, 1))) == ["split, fold_in 1"]
    assert of(lambda k: draw(jax.random.fold_in(k, 1)) + draw(jax.random.fold_in(k, 1))) == ["fold_in 1, fold_in 1"]
    each = jax.vmap(lambda k: draw(k) + draw(jax.random.fold_in(k, 0)))
    assert of(lambda k: each(jax.random.split(k, 3))) == ["draw, fold_in 0"]
    assert of(lambda k: jax.lax.cond(draw(k) > 0, lambda: draw(k), lambda: 0.0)) == ["draw, draw"]
    assert not of(lambda k: jax.lax.cond(True, lambda: draw(k), lambda: -draw(k)))
    assert of(lambda k: jax.lax.fori_loop(0, 3, lambda i, x: x + draw(jax.random.fold_in(k, i)), draw(k)))
    assert not of(lambda k: jax.lax.fori_loop(0, 3, lambda i, x: x + draw(jax.random.fold_in(k, i)), 0.0))
    again = lambda way: lambda k: jax.lax.map(lambda x: x + draw(way(k)), jnp.zeros(3))  # noqa: E731
    assert of(again(lambda k: k)) == ["draw, draw"] and not of(again(jax.random.clone))
    assert not of(lambda k: draw(jax.random.fold_in(k, 0)) + draw(jax.random.fold_in(k, 1)))
    remat = lambda way: lambda k: jax.grad(jax.checkpoint(lambda x: jnp.sin(x * way(k))))(1.0)  # noqa: E731
    assert not of(remat(lambda k: draw(jax.random.fold_in(k, 1))))
    assert of(remat(lambda k: draw(k) + draw(k))) == ["draw, draw"]
    assert not of(lambda k: draw(k) + draw(jax.random.clone(k)))  # on purpose


@pytest.mark.parametrize("family", families.named())
def test_no_key_is_used_twice(family):
    state, found = functions(families.FAMILIES[family])
    for name, function in found.items():
        assert not reuses(jax.make_jaxpr(function)(state, KEY)), name


@pytest.mark.slow
@pytest.mark.parametrize("family", families.QUICK)  # of every kind one: 20 s each
def test_jaxs_own_checker_agrees(family):
    """Which raises KeyReuseError when a program is called."""
    shapes, found = functions(families.FAMILIES[family])
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    with jax.debug_key_reuse(True):
        for i, function in enumerate(found.values()):
            jax.block_until_ready(jax.jit(function)(state, jax.random.key(i)))
