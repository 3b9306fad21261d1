"""Pictures from words and from pictures; each PNG records how it was made.

generator.py  words, pictures, parts of pictures -> pictures
options.py    what a drawing can be told;  prompts.py and inputs.py what it is given: words, pictures, masks
models.py     the models, loaded from a dataset's checkpoints;  networks.py one network and where its weights came from
laion.py      the models of a dalle2-laion configuration;  laion_json.py its fields
guidance.py   with and without the condition in one pass;  samplers.py from noise to a picture
noise.py      noise that depends on a picture's own seed;  precision.py fp32 or bf16, measured
picture.py    a picture and its origin;  files.py pictures on disk;  sweep.py a grid of options
gallery.py    prompt, picture, and the nearest training picture
search.py     a dataset's pictures nearest to a vector;  search_index.py, search_index_worker.py its index in the lake
explain.py    where a picture came from
serve_search.py  clip-retrieval's server over a dataset
"""
