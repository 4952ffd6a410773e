"""DenseNet121 and its .h5 file: building, saving, loading, start weights, what the file says of the model.

Also the input check, which measures how unlike the training data a picture is."""
