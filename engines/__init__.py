"""From checkpoints to what the runtime loads: ONNX export, parity reports, presets.

python -m engines.export        checkpoint -> model bundle
python -m engines.make_presets  pictures of each preset -> token files in a bundle
python -m engines.annotate      evaluation report -> a bundle's manifest
python -m engines.verify        do checkpoint, ONNX files, backends and engines agree?
python -m engines.precision     what half precision costs, part by part
python -m engines.prebuild      every TensorRT for RTX engine ahead of time
"""
