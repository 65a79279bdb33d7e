// Time, in one process and in turns, the WebAssembly modules of bitc and the same layers in onnxruntime-web.
// node web.mjs PLAN.json: {ort: path of its module, limit, layers: [{bits, bitsLayers, peers: [{path, kind, shape, layers}]}]}
// A layer may be {modules: [path]} instead: modules of bitc to compare.
import { readFileSync } from "node:fs";

const ROUNDS = 25, TURN = 8;
const plan = JSON.parse(readFileSync(process.argv[2]));
const ort = plan.ort ? await import(plan.ort) : null;
if (ort) {
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
}

function product(shape) {
    return shape.reduce((a, b) => a * b, 1);
}

async function bits(path, layers) {
    const { instance } = await WebAssembly.instantiate(readFileSync(path), { bitc: { hook() {} } });
    const e = instance.exports;
    if (e.bitc_limit) return { layers: 1000 * new DataView(e.memory.buffer).getInt32(e.bitc_limit_bits.value, true), call: () => e.bitc_limit(1000) };
    const [arena, input, output] = [e.bitc_arena.value, e.bitc_in.value, e.bitc_out.value];
    return { layers, call: () => e.layer_run(arena, input, output) };
}

async function peer({ path, kind, shape, layers }) {
    const session = await ort.InferenceSession.create(readFileSync(path), { executionProviders: ["wasm"] });
    const data = kind === "uint8" ? new Uint8Array(product(shape)) : new Float32Array(product(shape));
    const feeds = { x: new ort.Tensor(kind, data.map((_, i) => i % 251), shape) };
    return { layers, call: () => session.run(feeds) };
}

const results = [];
for (const layer of plan.layers) {
    const contenders = [];
    for (const path of layer.modules ?? []) contenders.push(await bits(path, 1));
    if (layer.bits) contenders.push(await bits(layer.bits, layer.bitsLayers), await bits(plan.limit, 1));
    if (ort) for (const p of layer.peers ?? []) contenders.push(await peer(p));
    const best = contenders.map(() => Infinity), repeat = contenders.map(() => 1);
    for (let round = 0; round < ROUNDS; round++) {
        for (let i = 0; i < contenders.length; i++) {
            const start = performance.now();
            for (let k = 0; k < repeat[i]; k++) await contenders[i].call();
            const taken = performance.now() - start;
            if (round > 1) best[i] = Math.min(best[i], taken / repeat[i] / contenders[i].layers);
            repeat[i] = Math.max(1, Math.round(repeat[i] * TURN / Math.max(taken, 0.001)));
        }
    }
    results.push(best.map((milliseconds) => milliseconds / 1e3));
}
console.log(JSON.stringify(results));
process.exit(0);
